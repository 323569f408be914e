use super::environment::is_made_by_kubernetes;
use super::resolver::specs;
use super::*;
use clap::{Args as _, FromArgMatches as _};
use gantry_proto::model::limits;
use std::collections::HashSet;
use std::time::Duration;

/// Loads with a file of that text, those variables and those flags.
fn load_all(file: &str, variables: Environment, flags: &[&str]) -> Result<Loaded, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.toml");
    std::fs::write(&path, file).unwrap();
    let command = OptionFlags::augment_args(clap::Command::new("gantry").no_binary_name(true));
    let flags = OptionFlags::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap();
    let dir_prefix = format!("{}/", dir.path().display());
    load(Some(&path), &variables, &flags, Role::Standalone)
        .map_err(|mistakes| mistakes.0.iter().map(|m| m.to_string().replace(&dir_prefix, "")).collect())
}

fn load_file(file: &str) -> Result<Loaded, Vec<String>> {
    load_all(file, Environment::default(), &[])
}

/// The values without what depends on the machine.
fn values(loaded: Loaded) -> Config {
    let mut config = loaded.config;
    config.data.dir = "/var/lib/gantry".into();
    config
}

fn uncommented(reference: &str) -> String {
    let setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    reference.lines().map(|line| if setting(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_stronger_layer_wins_and_is_named() {
    let file = "[store]\nflush = \"async\"\nretention = \"1h\"\nretention_bytes = \"8GiB\"\n";
    let variables = Environment::from([("GANTRY_STORE_RETENTION", "2h"), ("GANTRY_STORE_SEGMENT_BYTES", "64MiB")]);
    let loaded = load_all(file, variables, &["--store-segment-bytes", "32MiB", "--listen", "0.0.0.0:9000"]).unwrap();

    let store = &loaded.config.store;
    assert_eq!(store.flush, FlushMode::Async);
    assert_eq!(store.retention, Duration::from_secs(7200));
    assert_eq!(store.retention_bytes, Some(ByteSize(8 << 30)));
    assert_eq!(store.segment_bytes, ByteSize(32 << 20));
    assert_eq!(loaded.config.listen.address, "0.0.0.0:9000".parse().unwrap());

    let origin = |key| loaded.effective.iter().find(|e| e.spec.key == key).unwrap().origin.to_string();
    assert!(origin("store.flush").ends_with("gantry.toml:2"));
    assert_eq!(origin("store.retention"), "environment GANTRY_STORE_RETENTION");
    assert_eq!(origin("store.segment_bytes"), "flag --store-segment-bytes");
    assert_eq!(origin("log.level"), "default");
}

#[test]
fn every_mistake_of_every_layer_is_reported_in_one_run() {
    let file = "\
[store]
flsh = \"async\"
retention = 72
disk_watermark = \"ninety\"
segment_bytes = \"1.5GiB\"
checkpoint_interval = \"soon\"

[listen]
address = \"localhost:8081\"
tls_key = \"/k.pem\"

[topics]
auto_create = 1
auto_create_queues = 100_000

[broker]
name = \"b\"
";
    let variables = Environment::from([
        ("GANTRY_LISTEN_ADVERTISED", "http://example.com"),
        ("GANTRY_STORE_FLUSHH", "sync"),
        ("GANTRY_STORE_RETENTION", "1s"),
        ("UNRELATED", "x"),
    ]);
    let mistakes = load_all(file, variables, &["--flush", "maybe"]).unwrap_err();
    let expected = [
        "file gantry.toml:2: store.flsh is not an option; did you mean store.flush?",
        "file gantry.toml:3: store.retention: found an integer; expected a duration such as 500ms, 30s, 15m or 72h, in quotes",
        "file gantry.toml:4: store.disk_watermark: found a string; expected a percentage such as 90, without quotes",
        "file gantry.toml:5: store.segment_bytes: \"1.5GiB\" is not a size such as 512MiB or 1GiB: \".5GiB\" is not a unit; \
         use KiB, MiB, GiB or TiB",
        "file gantry.toml:6: store.checkpoint_interval: \"soon\" is not a duration such as 500ms, 30s, 15m or 72h: \
         expected number at 0",
        "file gantry.toml:9: listen.address: \"localhost:8081\" is not an IP address and a port such as 127.0.0.1:8081",
        "file gantry.toml:10: listen.tls_certificate and listen.tls_key go together: set both, or none for a self-signed \
         certificate",
        "file gantry.toml:13: topics.auto_create: found an integer; expected true or false, without quotes",
        "file gantry.toml:14: topics.auto_create_queues: \"100000\" is out of range; expected a whole number, from 1 to 4096",
        "file gantry.toml:17: broker.name is not an option",
        "environment GANTRY_STORE_FLUSHH: no option has this variable; did you mean GANTRY_STORE_FLUSH?",
        "environment GANTRY_LISTEN_ADVERTISED: listen.advertised: \"http://example.com\" is not a host and a port such as \
         mq.example.com:8081: \"//example.com\" is not a port",
        "environment GANTRY_STORE_RETENTION: store.retention: \"1s\" is out of range; expected a duration such as 500ms, \
         30s, 15m or 72h, from 1m to 87600h",
        "flag --flush: store.flush: \"maybe\" is not sync or async",
    ];
    for (found, expected) in mistakes.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let mistakes = load_file(
        "[listen]\naddress = \"127.0.0.1:9\"\n[ops]\naddress = \"127.0.0.1:9\"\n\
         [store]\nretention_watermark = 90\nretention_bytes = \"1GiB\"\n",
    )
    .unwrap_err();
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("file gantry.toml:4: listen.address and ops.address are both 127.0.0.1:9"));
    assert!(mistakes[1].starts_with("file gantry.toml:6: store.retention_watermark (90) must be below"));
    assert!(mistakes[2].starts_with("file gantry.toml:7: store.retention_bytes (1GiB) must be at least twice"));
}

#[test]
fn a_broken_file_hides_no_mistake_elsewhere() {
    let mistakes = load_all("[store\nflush = \n", Environment::default(), &["--flush", "maybe"]).unwrap_err();
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("file gantry.toml:1: is not TOML"), "{mistakes:#?}");
    assert!(mistakes[1].starts_with("flag --flush"), "{mistakes:#?}");

    let absent =
        load(Some(Path::new("/absent.toml")), &Environment::default(), &OptionFlags::default(), Role::Standalone)
            .unwrap_err();
    assert!(
        absent.to_string().starts_with("the configuration has a mistake: file /absent.toml: cannot be read: No such")
    );
}

#[test]
fn a_section_and_an_option_are_not_confused() {
    let mistakes = load_file("flush = \"sync\"\nstore = 1\n[listn]\n").unwrap_err();
    let expected = [
        "file gantry.toml:1: flush is neither a section nor an option; did you mean store.flush?",
        "file gantry.toml:2: store is a section; write [store] and its options below",
        "file gantry.toml:3: listn is neither a section nor an option; did you mean listen?",
    ];
    assert_eq!(mistakes, expected);
}

#[test]
fn sizes_may_be_plain_numbers_and_integers_of_any_base() {
    let loaded = load_file("[store]\nsegment_bytes = 0x4000000\ninflight_max = 5_000\n").unwrap();
    assert_eq!(loaded.config.store.segment_bytes, ByteSize(64 << 20));
    assert_eq!(loaded.config.store.inflight_max, 5000);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let loaded = load_all("", Environment::from([("GANTRY_LISTEN_ADVERTISED", "")]), &[]).unwrap();
    assert_eq!(loaded.config.listen.advertised, None);
}

#[test]
fn what_kubernetes_says_about_services_of_our_name_is_no_mistake() {
    let variables = Environment::from([
        ("GANTRY_SERVICE_HOST", "10.0.0.1"),
        ("GANTRY_SERVICE_PORT", "8081"),
        ("GANTRY_SERVICE_PORT_GRPC", "8081"),
        ("GANTRY_PORT", "tcp://10.0.0.1:8081"),
        ("GANTRY_PORT_8081_TCP_ADDR", "10.0.0.1"),
        ("GANTRY_OPS_PORT_8082_TCP", "tcp://10.0.0.2:8082"),
    ]);
    assert!(load_all("", variables, &[]).is_ok());
    assert!(specs().all(|spec| !is_made_by_kubernetes(&spec.variable())));
}

#[test]
fn declared_defaults_and_examples_are_valid() {
    let reference = uncommented(&print_reference());
    let loaded = load_file(&reference).unwrap();
    for effective in &loaded.effective {
        assert_ne!(effective.origin, Origin::Default, "{} is missing from the reference", effective.spec.key);
    }
}

#[test]
fn the_reference_as_it_is_changes_nothing() {
    let defaults = load(None, &Environment::default(), &OptionFlags::default(), Role::Standalone).unwrap();
    assert_eq!(values(load_file(&print_reference()).unwrap()), values(defaults));
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    let loaded =
        load_file("[store]\nflush = \"async\"\nsegment_bytes = \"1500MB\"\n[log]\nlevel = \"warn\"\n").unwrap();
    let printed = print_effective(&loaded.effective);
    assert_eq!(load_file(&printed).unwrap().config, loaded.config);
    assert!(printed.contains("flush = \"async\"  # file "), "{printed}");
    assert!(printed.contains("retention = \"72h\"  # default"), "{printed}");
    assert!(printed.contains("#advertised =  # not set"), "{printed}");
}

#[test]
fn the_reference_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gantry.toml");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let current = print_reference();
    let differs = current.lines().zip(written.lines().chain(["(end of file)"])).find(|(now, then)| now != then);
    assert!(
        written == current,
        "{differs:?} differ; update with: cargo run -p gantry-deploy -- config print --defaults > deploy/config/gantry.toml"
    );
}

#[test]
fn keys_variables_and_flags_name_one_option_each() {
    let count = specs().count();
    assert_eq!(specs().map(|spec| spec.key).collect::<HashSet<_>>().len(), count);
    assert_eq!(specs().map(|spec| spec.variable()).collect::<HashSet<_>>().len(), count);
    assert_eq!(specs().map(|spec| spec.flag()).collect::<HashSet<_>>().len(), count);
}

#[test]
fn declared_bounds_and_defaults_agree_with_the_domains_limits() {
    let config = load(None, &Environment::default(), &OptionFlags::default(), Role::Standalone).unwrap().config;
    assert_eq!(config.groups.max_attempts, limits::MAX_ATTEMPTS_DEFAULT);
    assert_eq!(config.limits.invisible_duration_min, limits::INVISIBLE_DURATION_MIN);
    let max = |key| specs().find(|spec| spec.key == key).and_then(|spec| spec.range).unwrap().1.to_owned();
    assert_eq!(max("topics.auto_create_queues"), limits::QUEUE_COUNT_MAX.to_string());
    assert_eq!(max("groups.max_attempts"), limits::MAX_ATTEMPTS_MAX.to_string());
    let hours = limits::INVISIBLE_DURATION_MAX.as_secs() / 3600;
    assert_eq!(max("limits.invisible_duration_min"), format!("{hours}h"));
}

#[test]
fn a_process_of_a_cluster_must_know_the_controllers_and_a_secret() {
    let load_as = |role, flags: &[&str]| {
        let command = OptionFlags::augment_args(clap::Command::new("gantry").no_binary_name(true));
        let flags = OptionFlags::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap();
        load(None, &Environment::default(), &flags, role).map_err(|mistakes| mistakes.to_string())
    };
    for role in [Role::Proxy, Role::Store, Role::Controller] {
        assert!(load_as(role, &[]).unwrap_err().contains("cluster.controllers is missing"));
        let unknown = load_as(role, &["--controllers", "1=a:1"]).unwrap_err();
        assert!(unknown.contains("set cluster.token_file"), "{unknown}");
        assert!(load_as(role, &["--controllers", "1=a:1", "--token-file", "t"]).is_ok());
        let half = load_as(role, &["--controllers", "1=a:1", "--cluster-tls-ca", "ca"]).unwrap_err();
        assert!(half.contains("go together"), "{half}");
    }
    let base = ["--controllers", "1=a:1", "--token-file", "t", "--controller-id", "2"];
    assert!(load_as(Role::Controller, &base).unwrap_err().contains("has no member of that number"));
    assert!(load_as(Role::Controller, &[&base[..], &["--controller-join", "true"]].concat()).is_ok());
    assert!(load_as(Role::Standalone, &[]).is_ok());
}

#[test]
fn the_examples_for_three_machines_serve_every_role() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/three-machines");
    for machine in 1..=3 {
        let file = dir.join(format!("gantry-{machine}.toml"));
        for role in [Role::Proxy, Role::Store, Role::Controller] {
            let loaded = load(Some(&file), &Environment::default(), &OptionFlags::default(), role);
            let config = loaded.unwrap_or_else(|mistakes| panic!("{role:?}: {mistakes}")).config;
            assert_eq!(config.controller.id, machine);
            assert_eq!(config.store.group.as_str(), format!("store-{machine}"));
        }
    }
}
