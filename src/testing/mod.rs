//! Tests of whole ensembles. Test builds only.
//!
//! - `checker` judges what clients have seen, promise by promise.

pub mod checker;
