//! zoo.cfg, properties and command line → one typed, checked configuration; each default with its reason.
