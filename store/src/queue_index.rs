mod entry;
pub(crate) use entry::IndexEntry;
