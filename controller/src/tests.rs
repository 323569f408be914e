//! Several members in one process, with links that can be cut.

mod consensus;
mod leases;
mod members;
mod put_back;
mod versions;
