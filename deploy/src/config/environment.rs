//! The layer of environment variables.

use super::option::ENVIRONMENT_PREFIX;
use super::resolver::{Origin, Raw, Resolver, specs};
use super::suggest::suggest;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The environment variables of this process, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, OsString>);

/// Our variables that are not options of the server; the command line takes them.
const OTHER_VARIABLES: [&str; 2] = ["GANTRY_CONFIG", "GANTRY_ENDPOINT"];

impl Environment {
    /// Those of the process. Variables whose names are not UTF-8 are none of ours.
    pub fn of_process() -> Environment {
        Environment(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// A variable that is set, is UTF-8 and is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// Reads our variables into the resolver. An empty one counts as not set, so that a template can leave it blank.
    pub(super) fn read(&self, resolver: &mut Resolver) {
        for (name, value) in &self.0 {
            if !name.starts_with(ENVIRONMENT_PREFIX) || OTHER_VARIABLES.contains(&name.as_str()) || value.is_empty() {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            let Some(spec) = specs().find(|spec| spec.variable() == *name) else {
                if !is_made_by_kubernetes(name) {
                    resolver.mistake(origin, unknown(name));
                }
                continue;
            };
            match value.to_str() {
                Some(text) => resolver.set(spec.key, origin, Raw::Text(text.to_owned())),
                None => resolver.mistake(origin, format!("{}: the value is not UTF-8", spec.key)),
            }
        }
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Environment {
        Environment(variables.map(|(name, value)| (name.to_owned(), value.into())).into())
    }
}

fn unknown(name: &str) -> String {
    let variables: Vec<String> = specs().map(|spec| spec.variable()).collect();
    let known = variables.iter().map(String::as_str).chain(OTHER_VARIABLES);
    let hint = suggest(name, known).map(|close| format!("; did you mean {close}?")).unwrap_or_default();
    format!("no option has this variable{hint}")
}

/// Kubernetes gives every container variables about each Service: for one called `gantry` or `gantry-ops` they look like
/// ours (`GANTRY_SERVICE_HOST`, `GANTRY_OPS_PORT_8082_TCP_ADDR`) and say nothing to us.
pub(super) fn is_made_by_kubernetes(name: &str) -> bool {
    const ENDS: [&str; 3] = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    let about_a_port = |(_, rest): (&str, &str)| rest.starts_with(|c: char| c.is_ascii_digit());
    ENDS.iter().any(|end| name.ends_with(end))
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(about_a_port)
}
