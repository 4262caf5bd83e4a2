//! The local watch tables.
