//! One member of an ensemble without IO.
