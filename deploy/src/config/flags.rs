//! The layer of command-line flags: one flag per option, made from the declaration.

use super::declaration::SECTIONS;
use super::resolver::{Origin, Raw, Resolver, specs};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// Options given as flags. Values are checked together with those of the other layers, not by the parser of the command
/// line, which would stop at the first mistake.
#[derive(Clone, Debug, Default)]
pub struct OptionFlags(Vec<(&'static str, String)>);

impl OptionFlags {
    pub(super) fn read(&self, resolver: &mut Resolver) {
        for (key, value) in &self.0 {
            let flag = specs().find(|spec| spec.key == *key).map(|spec| spec.flag()).unwrap_or_default();
            resolver.set(key, Origin::Flag(flag), Raw::Text(value.clone()));
        }
    }
}

impl Args for OptionFlags {
    fn augment_args(command: Command) -> Command {
        SECTIONS.iter().fold(command, |command, section| {
            command.args(section.options.iter().map(|spec| {
                let short: Vec<&str> = spec.doc.iter().take(1).map(|line| line.trim()).collect();
                let long: Vec<&str> = spec.doc.iter().map(|line| line.trim()).collect();
                let default = if spec.default.is_empty() { "not set" } else { spec.default };
                let note = format!("[default: {default}] [env: {}]", spec.variable());
                Arg::new(spec.key)
                    .long(spec.flag())
                    .value_name(spec.value_name)
                    .help(format!("{} [default: {default}]", short.concat()))
                    .long_help(format!("{}\n{note}", long.join("\n")))
                    .help_heading(format!("Options of {}", section.name))
                    // Options with a short name of their own are the ones most people need.
                    .hide_short_help(spec.short_flag.is_none())
            }))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OptionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = specs().filter_map(|spec| Some((spec.key, matches.get_one::<String>(spec.key)?.clone())));
        Ok(OptionFlags(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
