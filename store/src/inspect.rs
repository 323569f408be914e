//! Reading a store's files without opening the store: for who looks at a folder that may be in use, or broken. Nothing here
//! writes.

mod index;

pub use index::{IndexContents, IndexEntryAt, IndexFile, IndexFileError, IndexRun};
