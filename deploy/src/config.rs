//! Configuration: what may be set, where it was set, and every mistake made while setting it.
//!
//! [`declaration`] names each option once; the parsed tree, the flags, the environment variables and the reference file
//! follow from it. Layers, weakest first: default, file, environment, flag. `main` loads the configuration once; from then
//! on it is plain data that never changes.
//!
//! Must always hold: a mistake in any layer is reported even when a stronger layer covers it, and all mistakes are
//! reported together.

mod contradictions;
mod data_dir;
mod declaration;
mod environment;
mod file;
mod flags;
mod members;
mod mistake;
mod option;
mod print;
mod resolver;
mod role;
mod suggest;
mod value;

pub use declaration::{
    Admin, Cluster, Config, Controller, Data, Groups, Limits, Listen, Log, Ops, SECTIONS, Store, Topics,
};
pub use environment::Environment;
pub use flags::OptionFlags;
pub use members::ControllerMembers;
pub use mistake::{Mistake, Mistakes};
pub use option::{OptionSpec, SectionSpec};
pub use print::{print_effective, print_reference};
pub use resolver::{Effective, Origin};
pub use role::Role;
pub use value::{ByteSize, FlushMode, LogFilter, LogFormat, Percent, ProxyProtocolMode};

use resolver::Resolver;
use std::path::Path;

/// A configuration without mistakes, and where each value of it comes from.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Each option with its value as TOML and its origin, in the order of the declaration.
    pub effective: Vec<Effective>,
}

/// Reads all layers, for a process of that role.
pub fn load(
    file: Option<&Path>,
    environment: &Environment,
    flags: &OptionFlags,
    role: Role,
) -> Result<Loaded, Mistakes> {
    let mut resolver = Resolver::default();
    if let Some(dir) = data_dir::default_data_dir(environment) {
        resolver.replace_default("data.dir", dir);
    }
    if let Some(file) = file {
        file::read(file, &mut resolver);
    }
    environment.read(&mut resolver);
    flags.read(&mut resolver);

    let config = Config::resolve(&mut resolver);
    contradictions::find(&config, &mut resolver);
    role.check(&config, &mut resolver);
    let (effective, mistakes) = resolver.finish();
    if mistakes.is_empty() { Ok(Loaded { config, effective }) } else { Err(Mistakes(mistakes)) }
}

#[cfg(test)]
mod tests;
