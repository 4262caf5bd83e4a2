//! Four-letter words and metrics: reads a status handle and changes nothing.
