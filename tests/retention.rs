//! Retention: the same runs stay as with restic's own policy, and what is not known is not judged.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::process::Command;

use gitlab_backup::catalog::{Catalog, CompleteRun};
use gitlab_backup::config::Retention;
use gitlab_backup::repository::Snapshot;
use gitlab_backup::repository::retention::decide;
use gitlab_backup::runs::Manifest;
use gitlab_backup::steps::prune::plan;
use gitlab_backup::values::{RunId, Timespan};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustic_backend::BackendOptions;
use rustic_core::jiff::Timestamp as Moment;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{ConfigOptions, Credentials, KeyOptions, Repository, RepositoryOptions};

const DAY: i64 = 24 * 3600;

/// A year and more of nightly runs at about half past two, some nights without one, some with two.
fn nights() -> Vec<Timestamp> {
    let first: Timestamp = "2024-09-30T02:30:00Z".parse().unwrap();
    let mut times = Vec::new();
    for night in 0..430_i64 {
        let jitter = night * 7919 % 600;
        match night % 23 {
            11 => {}
            17 => times.extend([0, 5 * 3600].map(|more| first + SignedDuration::from_secs(night * DAY + jitter + more))),
            _ => times.push(first + SignedDuration::from_secs(night * DAY + jitter)),
        }
    }
    times
}

fn runs(times: &[Timestamp]) -> Vec<(RunId, Timestamp)> {
    times.iter().map(|time| (RunId::new(*time, 0), *time)).collect()
}

#[test]
fn keeps_what_restic_keeps() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let location = directory.path().join("repository");
    let password = directory.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let backends = BackendOptions::default().repository(location.to_str().unwrap()).to_backends().unwrap();
    let repository = Repository::new(&RepositoryOptions::default().no_cache(true), &backends).unwrap();
    let repository = repository.init(&Credentials::password("secret"), &KeyOptions::default(), &ConfigOptions::default()).unwrap();
    let times = nights();
    let snapshot = |time: &Timestamp| {
        let time = Moment::from_second(time.as_second()).unwrap().to_zoned(rustic_core::jiff::tz::TimeZone::UTC);
        SnapshotFile { time, hostname: "lab".to_owned(), ..SnapshotFile::default() }
    };
    repository.save_snapshots(times.iter().map(snapshot).collect()).unwrap();

    let days = |days: u64| Timespan::from_secs(days * 24 * 3600);
    let policies = [
        Retention { keep_daily: Some(7), keep_weekly: Some(4), keep_monthly: Some(6), ..Retention::default() },
        Retention { keep_last: Some(3), ..Retention::default() },
        Retention { keep_yearly: Some(5), keep_weekly: Some(60), ..Retention::default() },
        Retention { keep_within: Some(days(45)), keep_monthly: Some(3), ..Retention::default() },
        Retention { keep_last: Some(1), keep_daily: Some(400), ..Retention::default() },
    ];
    for policy in policies {
        let mut restic = Command::new("restic");
        restic.args(["--no-cache", "forget", "--dry-run", "--json", "--group-by", "host"]);
        restic.env("RESTIC_REPOSITORY", &location).env("RESTIC_PASSWORD_FILE", &password);
        for (name, count) in [
            ("last", policy.keep_last),
            ("daily", policy.keep_daily),
            ("weekly", policy.keep_weekly),
            ("monthly", policy.keep_monthly),
            ("yearly", policy.keep_yearly),
        ] {
            restic.args(count.map(|count| format!("--keep-{name}={count}")));
        }
        restic.args(policy.keep_within.map(|span| format!("--keep-within={}d", span.duration().as_secs() / 86400)));
        let output = restic.output().expect("restic is needed: tests/prepare installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let groups: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let theirs: BTreeSet<Timestamp> =
            groups[0]["keep"].as_array().unwrap().iter().map(|kept| kept["time"].as_str().unwrap().parse().unwrap()).collect();
        let fates = decide(&policy, &runs(&times), &TimeZone::UTC);
        let ours: BTreeSet<RunId> = fates.iter().filter(|fate| fate.keep).map(|fate| fate.run.clone()).collect();
        assert_eq!(ours, theirs.iter().map(|time| RunId::new(*time, 0)).collect(), "{policy:?}");
        assert!(ours.len() < times.len() && fates.len() == times.len());
        assert!(fates.iter().all(|fate| fate.keep != fate.reasons.is_empty()));
    }
}

#[test]
fn no_retention_keeps_everything() {
    assert!(decide(&Retention::default(), &runs(&nights()), &TimeZone::UTC).iter().all(|fate| fate.keep));
}

fn snapshot(run: &RunId, part: &str, time: Timestamp) -> Snapshot {
    Snapshot { id: format!("{run}-{part}"), tree: String::new(), time, run: run.clone(), part: part.to_owned() }
}

fn complete(time: Timestamp) -> CompleteRun {
    let id = RunId::new(time, 0);
    let snapshots = ["files", "postgresql", "manifest"].map(|part| snapshot(&id, part, time)).into();
    let json = serde_json::json!({
        "id": id, "host": "lab", "started": time, "finished": time, "complete": true, "downtime_seconds": 1.0,
        "downtime": { "stop": 0.0, "capture": 1.0, "start": 0.0 }, "versions": [], "parts": [],
    });
    let manifest: Manifest = serde_json::from_value(json).unwrap();
    CompleteRun { manifest, snapshots }
}

#[test]
fn a_manifest_goes_before_its_parts_and_old_leftovers_before_both() {
    let times = nights();
    let now = times[2] + SignedDuration::from_secs(3600);
    let (old, young) = (RunId::new(times[0], 1), RunId::new(times[2], 1));
    let catalog = Catalog {
        complete: times[..3].iter().map(|time| complete(*time)).collect(),
        damaged: vec![],
        incomplete: vec![
            (old.clone(), vec![snapshot(&old, "files", times[0])]),
            (young.clone(), vec![snapshot(&young, "files", times[2])]),
        ],
    };
    let policy = Retention { keep_last: Some(2), ..Retention::default() };
    let plan = plan(&policy, &catalog, now).unwrap();
    assert_eq!(plan.leftovers, [old]);
    let gone = RunId::new(times[0], 0);
    let expected: Vec<String> = [format!("{}-files", plan.leftovers[0])]
        .into_iter()
        .chain(["manifest", "files", "postgresql"].map(|part| format!("{gone}-{part}")))
        .collect();
    assert_eq!(plan.snapshots(), expected);
}

#[test]
fn nothing_is_judged_while_a_manifest_cannot_be_read() {
    let times = nights();
    let run = RunId::new(times[0], 0);
    let catalog = Catalog {
        complete: times[1..5].iter().map(|time| complete(*time)).collect(),
        damaged: vec![(run, "a bad blob".into())],
        incomplete: vec![],
    };
    let policy = Retention { keep_last: Some(1), ..Retention::default() };
    let error = plan(&policy, &catalog, Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("a bad blob"), "{error}");
}

#[test]
fn the_only_run_stays_whatever_the_policy_says() {
    let only = runs(&nights()[..1]);
    for policy in [
        Retention { keep_last: Some(1), ..Retention::default() },
        Retention { keep_within: Some(Timespan::from_secs(1)), ..Retention::default() },
    ] {
        assert!(decide(&policy, &only, &TimeZone::UTC)[0].keep);
    }
}
