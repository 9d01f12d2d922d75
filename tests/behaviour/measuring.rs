//! `corehub bench` on a server of its own: scenarios of the durable log run as they are told, and what they hold a server to
//! that is no matter of time is good. No time decides here.

use std::process::Stdio;

use serde_json::Value;

use crate::support::server::program;

#[test]
fn a_durable_run_loses_nothing() {
    let report = bench(&["durable", "--connections", "4", "--outstanding", "2", "--rounds", "1", "--seconds", "2"]);
    assert!(figure(&report, "saturation_per_second") > 0.0 && figure(&report, "memory_per_second") > 0.0, "{report}");
    assert!(figure(&report, "ack_max_us") >= figure(&report, "ack_p50_us") && figure(&report, "sync_p50_us") > 0.0, "{report}");
    good(&report, &["missing deliveries", "messages without a good ack", "repeated, excess or disordered deliveries"]);
}

#[test]
fn a_device_far_behind_gets_everything_in_order() {
    let sizes = ["--messages", "600", "--conversations", "7", "--others", "2", "--rate", "50", "--seconds", "0.3"];
    for acks in [&[][..], &["--acks"]] {
        let report = bench(&[&["behind", "--pace", "4e6"][..], &sizes, acks].concat());
        assert!(figure(&report, "received") >= 600.0, "{report}");
        good(
            &report,
            &[
                "messages the device never got",
                "messages out of order, or repeated without saying so",
                "messages the server told the device are gone",
                "missing deliveries",
            ],
        );
    }
}

#[test]
fn pages_of_a_long_conversation_are_the_ones_asked_for() {
    // A page that is not ends the run with an error.
    let report = bench(&["history", "--messages", "25000", "--limit", "20", "--requests", "10", "--searches", "2"]);
    assert!(figure(&report, "anywhere_p99_us") > 0.0, "{report}");
    assert_eq!((figure(&report, "rare_found"), figure(&report, "absent_found")), (3.0, 0.0), "{report}");
}

#[test]
fn a_filled_folder_starts_again_and_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("a plain path");
    let sizes = ["startup", "--messages", "3000", "--conversations", "300", "--busy-user", "30", "--rounds", "1", "--data", path];
    let report = bench(&sizes);
    assert!(figure(&report, "killed_ms") > 0.0 && figure(&report, "connect_p50_us") > 0.0, "{report}");
    let again = bench(&sizes);
    assert!(again["setting"].as_str().is_some_and(|setting| setting.contains("earlier run")), "{again}");
}

#[test]
fn groups_of_all_sizes_are_written_to() {
    let report =
        bench(&["groups", "--groups", "12", "--group-size", "5", "--large", "11000", "--messages", "300", "--rounds", "1"]);
    assert!(figure(&report, "large_per_second") > 0.0 && figure(&report, "usual_written_bytes") > 0.0, "{report}");
}

fn bench(arguments: &[&str]) -> Value {
    let mut command = program();
    command.arg("bench").args(arguments).args(["--spawn", "--json"]).stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("standard output is one JSON document")
}

fn figure(report: &Value, key: &str) -> f64 {
    report["figures"][key]["median"].as_f64().unwrap_or_else(|| panic!("no figure {key} in {report}"))
}

fn good(report: &Value, checks: &[&str]) {
    for name in checks {
        let all = report["checks"].as_array().expect("a list of checks");
        let named: Vec<&Value> = all.iter().filter(|check| check["check"] == *name).collect();
        assert!(!named.is_empty() && named.iter().all(|check| check["good"] == true), "{name}: {named:?}");
    }
}
