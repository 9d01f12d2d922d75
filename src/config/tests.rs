//! Tests of reading, precedence, errors, documents and capacities.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::memory::{MemorySum, Taken};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Sources whose environment has a good secret and what else is given.
fn sources(file: Option<PathBuf>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let secret = [("COREHUB_AUTH__HMAC_SECRET", SECRET)];
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let flag = |(path, value): &(&str, &str)| Flag::set(&format!("{path}={value}"));
    Sources {
        file,
        environment: secret.iter().chain(environment).map(pair).collect(),
        flags: flags.iter().map(flag).collect(),
        dev: false,
    }
}

/// What a file with a good secret and these further lines is found guilty of.
fn faults_of(text: &str) -> Vec<String> {
    let text = format!("[auth]\nhmac_secret = \"{SECRET}\"\n{text}");
    match Config::parse("corehub.toml", &text, false) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(|finding| finding.to_string()).collect(),
    }
}

#[track_caller]
fn assert_fault(text: &str, part: &str) {
    let faults = faults_of(text);
    assert!(faults.iter().any(|fault| fault.contains(part)), "{text:?} gave {faults:?}, not {part:?}");
}

fn good(text: &str) -> Config {
    let text = format!("[auth]\nhmac_secret = \"{SECRET}\"\n{text}");
    Config::parse("corehub.toml", &text, false).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_default_is_readable_and_within_its_bounds() {
    let mut config = Config::default();
    for spec in OPTIONS {
        if let spec::Start::Default(text) = spec.start {
            config.assign(spec, &value::Raw::Word(text.to_owned())).unwrap_or_else(|fault| panic!("{} {fault}", spec.path));
        }
        assert!(!spec.text().is_empty(), "{} is not documented", spec.path);
    }
    assert_eq!(config, Config::default());
}

#[test]
fn no_two_options_share_a_variable() {
    let names: std::collections::BTreeSet<_> = OPTIONS.iter().map(Spec::variable).collect();
    assert_eq!(names.len(), OPTIONS.len());
}

#[test]
fn values_are_read_in_every_form() {
    let config = good(
        "timeout = \"1m30s\"\naudience = [\"a\", \"b\"]\n[listen]\nclient = \"[::1]:1\"\nadmin = \"localhost:2\"\n\
         [limits]\nmessage_bytes = \"1MiB\"\noutbox_bytes = 65536\n[heartbeat]\ninterval = 30\n\
         [shards]\ncount = 4\npin = true\nspin = \"50us\"\n[sessions]\npolicy = \"reject\"\n[store]\npath = \"/srv/x y\"\n",
    );
    assert_eq!(config.auth.timeout, Duration::from_secs(90));
    assert_eq!(config.auth.audience, ["a", "b"]);
    assert_eq!(config.listen.client, "[::1]:1".parse().unwrap());
    assert_eq!(config.listen.admin, "127.0.0.1:2".parse().unwrap());
    assert_eq!(config.limits.message_bytes, ByteSize(1 << 20));
    assert_eq!(config.limits.outbox_bytes, ByteSize(65_536));
    assert_eq!(config.heartbeat.interval, Duration::from_secs(30));
    assert_eq!((config.shards.count, config.shards.pin), (ShardCount::Exactly(4), Pin::On));
    assert_eq!(config.shards.spin, Duration::from_micros(50));
    assert_eq!(config.sessions.policy, SessionPolicy::Reject);
    assert_eq!(config.store.path, PathBuf::from("/srv/x y"));
    assert_eq!(config.auth.hmac_secret.unwrap().expose(), SECRET.as_bytes());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("corehub.toml");
    std::fs::write(&path, "[sessions]\nper_user = 7\n[log]\nlevel = \"warn\"\n[groups]\nreceipts_max = 3\n").expect("written");
    let environment = [("COREHUB_SESSIONS__PER_USER", "8"), ("COREHUB_LOG__LEVEL", "debug"), ("HOME", "/nowhere")];
    let config = Config::load(&sources(Some(path), &environment, &[("sessions.per_user", "9")])).expect("good sources");
    assert_eq!(config.sessions.per_user, 9);
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.groups.receipts_max, 3);
    assert_eq!(config.heartbeat.interval, Duration::from_secs(54));
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let origins = [("COREHUB_LISTEN__ORIGINS", "https://a.example, http://b.example:3000")];
    let config = Config::load(&sources(None, &origins, &[])).expect("good sources");
    assert_eq!(config.listen.origins, ["https://a.example", "http://b.example:3000"]);
}

#[test]
fn all_errors_are_reported_at_once_with_their_origins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("corehub.toml");
    let text = "[limits]\nconnections = -5\nmesage_bytes = 1\n\n[nonsense]\nx = 1\n[heartbeat]\ninterval = \"2h\"\ntimeout = 5\n";
    std::fs::write(&path, text).expect("written");
    let environment = [("COREHUB_LOG__FORMAT", "xml"), ("COREHUB_CONFIG", "x")];
    let errors = Config::load(&sources(Some(path), &environment, &[("sessions.per_user", "0")])).expect_err("bad sources");
    let told: Vec<_> = errors.0.iter().map(Finding::to_string).collect();
    let expected = [
        "corehub.toml:2: limits.connections is -5, but must be a whole number, from 1 to 16000000",
        "corehub.toml:3: limits.mesage_bytes is not a key; did you mean limits.message_bytes?",
        "corehub.toml:5: nonsense is not a section; sections are listen, shards, auth,",
        "corehub.toml:8: heartbeat.interval is \"2h\", but must be a duration like 10s, 250ms or 1h (bare integers: seconds), \
         from 1s to 1h",
        "environment COREHUB_LOG__FORMAT: log.format is \"xml\", but must be one of text, json",
        "environment COREHUB_CONFIG: config is not a key",
        "flag --set: sessions.per_user is \"0\", but must be a whole number, from 1 to 10000",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told:?} instead of {expected:?}");
    }
}

#[test]
fn broken_toml_is_reported_with_its_line_and_without_its_text() {
    let errors = Config::parse("corehub.toml", &format!("[auth]\nhmac_secret = {SECRET}x y\n"), false).expect_err("broken");
    let told = errors.to_string();
    assert!(told.contains("corehub.toml:2: is not valid TOML"), "{told}");
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn a_missing_file_is_an_error() {
    let errors = Config::load(&sources(Some("/nonexistent/corehub.toml".into()), &[], &[])).expect_err("no file");
    assert!(errors.to_string().contains("/nonexistent/corehub.toml: cannot be read"), "{errors}");
}

#[test]
fn a_key_that_is_given_twice_is_an_error() {
    assert_fault("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "corehub.toml:5: is not valid TOML");
}

#[test]
fn values_of_another_kind_are_refused() {
    for (text, part) in [
        ("[limits]\nmessage_bytes = \"512KB\"\n", "limits.message_bytes is \"512KB\", but must be a size"),
        ("[limits]\nmessage_bytes = 1.5\n", "is a fraction"),
        ("[limits]\nmessage_bytes = 9223372036854775808\n", "limits.message_bytes"),
        ("[limits]\nconnections = \"10\"\n", "limits.connections is \"10\""),
        ("[limits]\nconnections = 99999999999\n", "limits.connections is 99999999999"),
        ("[heartbeat]\ninterval = \"54\"\n", "heartbeat.interval is \"54\""),
        ("[heartbeat]\ninterval = \"-5s\"\n", "heartbeat.interval is \"-5s\""),
        ("[heartbeat]\ninterval = \"99999999999999999999s\"\n", "heartbeat.interval"),
        ("[listen]\nclient = \"8080\"\n", "listen.client is \"8080\", but must be an address and port"),
        ("[store]\nkind = \"postgres\"\n", "store.kind is \"postgres\", but must be one of memory, embedded"),
        ("[store]\npath = \"\"\n", "store.path is empty"),
        ("[server]\nnode_id = \"a\\u0007\"\n", "server.node_id"),
        ("[listen]\norigins = \"https://a.example\"\n", "listen.origins"),
        ("[listen]\n[listen.client]\nport = 1\n", "listen.client is a table"),
    ] {
        assert_fault(text, part);
    }
    // Whatever stands where a section belongs may be a secret.
    let flat = Config::parse("x", "log = 3\n", true).expect_err("no section").to_string();
    assert!(flat.contains("log is an integer, but must be a section"), "{flat}");
    let loose = Config::parse("x", "hmac_secret = \"x\"\n", true).expect_err("no section").to_string();
    assert!(loose.contains("did you mean auth.hmac_secret?"), "{loose}");
}

#[test]
fn reserved_options_are_refused() {
    assert_fault("[shards]\nflush_delay = \"1ms\"\n", "shards.flush_delay is not supported by this version");
    assert!(faults_of("[shards]\nflush_delay = 0\n").is_empty());
}

#[test]
fn secrets_are_long_unless_developing() {
    let told = |text: &str, dev| Config::parse("f", text, dev).err().map_or_else(String::new, |errors| errors.to_string());
    assert!(told("", false).contains("auth.hmac_secret is not set: give it at least 32 bytes"));
    assert_eq!(told("", true), "");
    let short = "[auth]\nhmac_secret = \"tooshort-but-secret\"\n[admin]\napi_key = \"also-short\"\n";
    let errors = told(short, false);
    assert!(errors.contains("f:2: auth.hmac_secret has 19 bytes, but must have at least 32"), "{errors}");
    assert!(errors.contains("f:4: admin.api_key has 10 bytes"), "{errors}");
    assert_eq!(told(short, true), "");
    let empty = told("[auth]\nhmac_secret = \"\"\n", false);
    assert_eq!(empty, "f:2: auth.hmac_secret is empty, but must be a text of at least 32 bytes");
}

#[test]
fn secrets_are_never_shown() {
    let config = good(&format!("[admin]\napi_key = \"{SECRET}\"\n"));
    assert!(!format!("{config:?}").contains("0123"));
    let written: String = OPTIONS.iter().map(|spec| config.write(spec)).collect();
    assert!(!written.contains("0123"));
    for value in ["123456789", "[\"123456789\"]", "true", "{ a = \"123456789\" }", "\"123456789\"", "1979-05-27", "1.5"] {
        let errors = Config::parse("f", &format!("[auth]\nhmac_secret = {value}\n"), false).expect_err(value);
        assert!(!errors.to_string().contains("123456789"), "{errors}");
    }
    let unknown = Config::load(&sources(None, &[("COREHUB_AUTH__HMAC_SECRETT", SECRET)], &[])).expect_err("unknown");
    assert!(!unknown.to_string().contains("0123"), "{unknown}");
}

#[test]
fn each_algorithm_needs_its_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (public, private, other) = (folder.path().join("a.pem"), folder.path().join("b.pem"), folder.path().join("c.txt"));
    std::fs::write(&public, "-----BEGIN PUBLIC KEY-----\n").expect("written");
    std::fs::write(&private, "-----BEGIN PRIVATE KEY-----\n").expect("written");
    std::fs::write(&other, "hello").expect("written");
    let told = |text: String| Config::parse("f", &text, false).err().map_or_else(String::new, |errors| errors.to_string());
    let with = |algorithms: &str, path: &std::path::Path| {
        told(format!("[auth]\nalgorithms = [{algorithms}]\npublic_key_file = \"{}\"\n", path.display()))
    };
    assert_eq!(with("\"RS256\"", &public), "");
    assert!(with("\"RS256\"", &private).contains("holds a private key"));
    assert!(with("\"ES256\"", &other).contains("is not a PEM file"));
    assert!(with("\"EdDSA\"", &folder.path().join("none.pem")).contains("cannot be read"));
    assert!(with("\"RS256\", \"ES256\"", &public).contains("fits one of them"));
    assert!(with("\"HS256\"", &public).contains("allows only HS256, but auth.public_key_file is set"));
    assert!(with("\"none\"", &public).contains("must be a list of any of HS256, RS256, ES256, EdDSA"));
    assert!(with("", &public).contains("must name at least one"));
    assert!(told("[auth]\nalgorithms = [\"RS256\"]\n".to_owned()).contains("auth.public_key_file is not set"));
}

#[test]
fn relations_between_options_hold() {
    assert_fault("[heartbeat]\ninterval = 60\n", "must be longer than heartbeat.interval");
    assert_fault("[limits]\nmessage_bytes = \"64KiB\"\ncontent_bytes = \"65KiB\"\n", "must be at most limits.message_bytes");
    assert_fault("[listen]\nadmin = \"127.0.0.1:8080\"\n", "must differ from listen.client");
    assert_fault(&format!("[server]\nnode_id = \"{}\"\n", "x".repeat(129)), "must have at most 128 bytes");
    assert!(faults_of("[listen]\nclient = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n").is_empty());
}

#[test]
fn origins_are_exact() {
    for good in ["https://a.example", "http://localhost:3000", "https://[::1]:8443", "http://127.0.0.1"] {
        assert!(faults_of(&format!("[listen]\norigins = [\"{good}\"]\n")).is_empty(), "{good}");
    }
    for bad in [
        "*",
        "null",
        "a.example",
        "https://a.example/",
        "https://*.a.example",
        "HTTPS://a.example",
        "https://a.example:443",
        "http://a.example:80",
        "https://a.example:0443",
        "ws://a.example",
        "https://",
        "https://u@a.example",
        "https://a.example:99999",
    ] {
        assert_fault(&format!("[admin]\ncors_origins = [\"{bad}\"]\n"), "exact origins as browsers send them");
    }
}

#[test]
fn variables_of_a_kubernetes_service_are_not_ours() {
    let links = [("COREHUB_PORT", "tcp://10.0.0.1:80"), ("COREHUB_PORT_80_TCP_ADDR", "10.0.0.1"), ("COREHUB_SERVICE_HOST", "x")];
    Config::load(&sources(None, &links, &[])).expect("ignored");
    Config::load(&sources(None, &[("COREHUB_PORT__X", "1")], &[])).expect_err("a section that does not exist");
}

#[test]
fn the_sample_says_the_defaults() {
    let dev = Config { dev: true, ..Config::default() };
    assert_eq!(Config::parse("sample", &sample(), true).expect("readable"), dev);
    let uncommented: Vec<_> =
        sample().lines().map(|line| if line.starts_with("# ") { "" } else { line.trim_start_matches('#') }.to_owned()).collect();
    assert_eq!(Config::parse("sample", &uncommented.join("\n"), true).expect("readable"), dev);
    for spec in OPTIONS.iter().filter(|spec| matches!(spec.start, spec::Start::Default(_)) && spec.status != Status::Unsupported)
    {
        assert!(uncommented.iter().any(|line| line.starts_with(&format!("{} = ", spec.key))), "{} is missing", spec.path);
    }
}

#[test]
fn the_reference_in_the_documents_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIG.md");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == reference(), "docs/CONFIG.md is stale: run `cargo run -- config reference > docs/CONFIG.md`");
}

#[test]
fn a_reload_tells_what_changed() {
    let (old, new) = (good(""), good("[log]\nlevel = \"debug\"\n[sessions]\nper_user = 6\n"));
    let changes: Vec<_> = old.changes(&new).iter().map(|spec| (spec.path, spec.status)).collect();
    assert_eq!(changes, [("sessions.per_user", Status::Restart), ("log.level", Status::Reloadable)]);
}

#[test]
fn capacities_hold_their_relations_at_both_ends_of_every_bound() {
    let mut extremes = vec![Config::default()];
    for spec in OPTIONS {
        let Some(bounds) = spec.bounds else { continue };
        for most in [false, true] {
            let value = if most { bounds.most } else { bounds.least };
            let written = match spec.kind {
                value::Kind::Duration => format!("{value}us"),
                value::Kind::Size => format!("{value}B"),
                _ => value.to_string(),
            };
            let flags = [Flag { name: "--set".to_owned(), path: spec.path.to_owned(), value: written }];
            // Some ends contradict other defaults, which is a conflict told to the user and not a capacity.
            match Config::load(&Sources { flags: flags.to_vec(), dev: true, ..Sources::default() }) {
                Ok(config) => extremes.push(config),
                Err(errors) => {
                    let reserved_or_related = |it: &Finding| matches!(it.fault, Fault::Conflict(_) | Fault::Unsupported);
                    assert!(errors.0.iter().all(reserved_or_related), "{errors}");
                }
            }
        }
    }
    assert!(extremes.len() > OPTIONS.len());
    for config in extremes {
        for cores in [0, 1, 2, 3, 64, 1_024] {
            let sum = MemorySum::of(&Limits::derive(&config, cores));
            assert!(sum.total_bytes() >= sum.bytes(Taken::Start));
        }
    }
}

#[test]
fn counts_that_must_be_powers_of_two_are_rounded_up() {
    let config =
        good("[shards]\ncount = 3\nring_entries = 1000\nreceive_buffers = 33\nmesh_capacity = 257\n[store]\nqueue = 100\n");
    let limits = Limits::derive(&config, 2);
    assert_eq!((limits.ring_entries, limits.receive_buffers, limits.mesh_capacity), (1024, 64, 512));
    assert_eq!((limits.engine.store_requests_max, limits.store.queue_max, limits.store.completions), (100, 300, 128));
    assert_eq!((limits.shards, limits.pin), (3, false));
    assert_eq!(limits.engine.content_bytes_max, 512 << 10);
}

#[test]
fn shards_follow_the_cores() {
    let limits = Limits::derive(&good(""), 8);
    assert_eq!((limits.shards, limits.pin), (8, true));
    assert!(limits.connections_per_shard_max >= limits.connections_max / 8);
    assert_eq!(Limits::derive(&good("[limits]\nconnections = 10\n"), 8).connections_per_shard_max, 10);
}

#[test]
fn the_memory_sum_counts_shards() {
    let of = |cores| MemorySum::of(&Limits::derive(&good(""), cores));
    let (one, four) = (of(1), of(4));
    let line = |sum: &MemorySum, what: &str| {
        let line = sum.lines.iter().find(|line| line.what == what).expect("the line exists").clone();
        (line.shard_bytes(), sum.line_bytes(&line))
    };
    assert_eq!(line(&one, "receive buffers"), (4 << 20, 4 << 20));
    assert_eq!(line(&four, "receive buffers"), (4 << 20, 16 << 20));
    assert_eq!(line(&one, "rings between shards"), (0, 0));
    assert_eq!(line(&four, "rings between shards").1, 4 * 3 * 16_384 * 256);
    assert_eq!(line(&one, "sockets in the kernel"), (0, 100_000 * 4_600));
    assert_eq!(line(&one, "sockets in the kernel"), line(&four, "sockets in the kernel"));
}
