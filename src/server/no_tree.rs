//! stub
use std::path::Path;
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeOptions;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct TreeError;
pub struct TreeStore;
impl TreeStore {
    pub fn open(_d: &Path, _o: TreeOptions) -> Result<TreeStore, TreeError> {
        Ok(TreeStore)
    }
}
