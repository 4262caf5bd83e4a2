//! Sockets: client listeners and frames. Bytes, not meaning.
