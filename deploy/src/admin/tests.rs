use crate::cli::Cli;
use clap::Parser as _;

fn parse(line: &str) -> Result<Cli, clap::error::ErrorKind> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
}

#[test]
fn commands_of_operators_are_understood() {
    for line in [
        "gantry admin topic create orders",
        "gantry admin topic create orders --type fifo --queues 4 --if-not-exists --endpoint mq:8081 --output json",
        "gantry admin --endpoint [::1]:8081 topic list --prefix ord",
        "gantry admin topic describe %DLQ%payments",
        "gantry admin topic alter orders --queues 16",
        "gantry admin topic delete orders --timeout 3s",
        "gantry admin group create payments --fifo --max-attempts 5 --backoff 1s,5s,1m --if-not-exists",
        "gantry admin group list",
        "gantry admin group describe payments",
        "gantry admin group alter payments --fifo false --max-attempts 3",
        "gantry admin group delete payments",
        "gantry admin cluster status --output json",
        "gantry admin cluster drain store-1",
        "gantry admin cluster activate store-1",
        "gantry admin cluster remove store-1 --force",
        "gantry admin cluster spread",
        "gantry admin cluster add-controller 4 gantry-4:8083",
        "gantry admin cluster remove-controller 4",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn commands_that_cannot_be_meant_are_usage_errors() {
    use clap::error::ErrorKind::{InvalidValue, MissingRequiredArgument, ValueValidation};
    for (line, kind) in [
        ("gantry admin topic create", MissingRequiredArgument),
        ("gantry admin topic create orders --type lite", InvalidValue),
        ("gantry admin topic create orders --queues 0", ValueValidation),
        ("gantry admin topic create orders --queues 5000", ValueValidation),
        ("gantry admin topic alter orders", MissingRequiredArgument),
        ("gantry admin group alter payments", MissingRequiredArgument),
        ("gantry admin group create payments --backoff soon", ValueValidation),
        ("gantry admin topic list --endpoint localhost", ValueValidation),
        ("gantry admin topic list --output yaml", InvalidValue),
        ("gantry admin cluster drain", MissingRequiredArgument),
        ("gantry admin cluster add-controller 0 a:1", ValueValidation),
        ("gantry admin cluster add-controller 4 a", ValueValidation),
    ] {
        assert_eq!(parse(line).err(), Some(kind), "{line}");
    }
}
