//! Why a store could not be opened, and whether trying again can help.

use crate::checkpoint::CheckpointError;
use crate::commit_log::recovery::LogOpenError;
use crate::data_folder::DataFolderError;
use crate::queue_index::SealedIndexError;
use gantry_proto::contract::StoreError;
use gantry_proto::env::WorkPanicked;

/// Why a store could not be opened. Nothing was changed that a later opening would miss.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenError(#[from] OpenErrorKind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenErrorKind {
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Log(#[from] LogOpenError),
    #[error(transparent)]
    Index(#[from] SealedIndexError),
    /// The state cannot be rebuilt from what the folder holds.
    #[error(transparent)]
    Rebuild(StoreError),
    /// The granted epoch cannot be begun.
    #[error(transparent)]
    Lead(StoreError),
    #[error("the setting {name} is {value}, but must be {expected}")]
    Setting { name: &'static str, value: u64, expected: String },
}

impl From<DataFolderError> for OpenError {
    fn from(error: DataFolderError) -> OpenError {
        OpenError(error.into())
    }
}

impl OpenError {
    /// False: trying again cannot help; somebody has to do something about the folder or the settings.
    pub(crate) fn may_pass(&self) -> bool {
        match &self.0 {
            OpenErrorKind::Folder(error) => error.may_pass(),
            OpenErrorKind::Checkpoint(error) => matches!(error, CheckpointError::Io { .. }),
            OpenErrorKind::Log(error) => error.may_pass(),
            OpenErrorKind::Index(error) => error.may_pass(),
            OpenErrorKind::Rebuild(_) | OpenErrorKind::Lead(_) => true,
            OpenErrorKind::Setting { .. } => false,
        }
    }

    pub(crate) fn panicked(panicked: &WorkPanicked) -> OpenError {
        OpenError(OpenErrorKind::Rebuild(StoreError::WritesStopped(panicked.to_string())))
    }
}
