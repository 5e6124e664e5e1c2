//! Retention: the same runs remain as with restic's own policy, and no decision is made about runs
//! that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gitlab_backup::catalog::{Catalog, CompleteRun, MANIFEST, Whose};
use gitlab_backup::config::{EngineName, Retention};
use gitlab_backup::machine::Base;
use gitlab_backup::paths::{self, RootDirectory};
use gitlab_backup::repository::retention::decide;
use gitlab_backup::repository::{Engine, Snapshot};
use gitlab_backup::run::prune::{Doubt, apply, plan};
use gitlab_backup::runs::Manifest;
use gitlab_backup::values::{RunId, Timespan};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustic_backend::BackendOptions;
use rustic_core::jiff::Timestamp as Moment;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    BackupOptions, Credentials, IndexedIdsStatus, OpenStatus, ParentOptions, PathList, Repository,
    RepositoryOptions, SnapshotOptions,
};

use crate::memory;
use crate::quick_repository::{self, PASSWORD};
use crate::sizes::size;

const DAY: i64 = 24 * 3600;
const HOST: &str = "lab";
const PARTS: [&str; 2] = ["files", "postgresql"];
/// Other tests of this process start programs, each of which holds our lock for a moment, between
/// its fork and its exec.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// More than a year of nightly runs at about half past two. Some nights have no run, some two.
fn nights() -> Vec<Timestamp> {
    let first: Timestamp = "2024-09-30T02:30:00Z".parse().unwrap();
    let mut times = Vec::new();
    for night in 0..430_i64 {
        let jitter = night * 7919 % 600;
        match night % 23 {
            11 => {}
            17 => times.extend(
                [0, 5 * 3600]
                    .map(|more| first + SignedDuration::from_secs(night * DAY + jitter + more)),
            ),
            _ => times.push(first + SignedDuration::from_secs(night * DAY + jitter)),
        }
    }
    times
}

fn runs(times: &[Timestamp]) -> Vec<(RunId, Timestamp)> {
    times.iter().map(|time| (RunId::new(*time, 0), *time)).collect()
}

/// The output of the real restic.
fn restic(location: &Path, words: &[&str]) -> String {
    let mut restic = Command::new("restic");
    restic
        .arg("--no-cache")
        .args(words)
        .env("RESTIC_REPOSITORY", location)
        .env("RESTIC_PASSWORD", PASSWORD);
    let output = restic.output().expect("restic is needed: tests/prepare installs it");
    assert!(
        output.status.success(),
        "restic {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A new repository in `location`, opened by the library itself.
fn created(location: &Path) -> Repository<OpenStatus> {
    quick_repository::create(EngineName::Builtin, location);
    let backends =
        BackendOptions::default().repository(location.to_str().unwrap()).to_backends().unwrap();
    let repository =
        Repository::new(&RepositoryOptions::default().no_cache(true), &backends).unwrap();
    repository.open(&Credentials::password(PASSWORD)).unwrap()
}

/// A policy as options of restic-forget(1).
fn keep(policy: &Retention) -> Vec<String> {
    let counts = [
        ("last", policy.keep_last),
        ("daily", policy.keep_daily),
        ("weekly", policy.keep_weekly),
        ("monthly", policy.keep_monthly),
        ("yearly", policy.keep_yearly),
    ];
    let counts =
        counts.into_iter().filter_map(|(name, count)| Some(format!("--keep-{name}={}", count?)));
    counts
        .chain(
            policy
                .keep_within
                .map(|span| format!("--keep-within={}d", span.duration().as_secs() / 86400)),
        )
        .collect()
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn keeps_what_restic_keeps() {
    let directory = memory::directory();
    let location = directory.path().join("repository");
    let repository = created(&location);
    let times = nights();
    let snapshot = |time: &Timestamp| {
        let time = Moment::from_second(time.as_second())
            .unwrap()
            .to_zoned(rustic_core::jiff::tz::TimeZone::UTC);
        SnapshotFile { time, hostname: "lab".to_owned(), ..SnapshotFile::default() }
    };
    repository.save_snapshots(times.iter().map(snapshot).collect()).unwrap();

    let days = |days: u64| Timespan::from_secs(days * 24 * 3600);
    let policies = [
        Retention {
            keep_daily: Some(7),
            keep_weekly: Some(4),
            keep_monthly: Some(6),
            ..Retention::default()
        },
        Retention { keep_last: Some(3), ..Retention::default() },
        Retention { keep_yearly: Some(5), keep_weekly: Some(60), ..Retention::default() },
        Retention { keep_within: Some(days(45)), keep_monthly: Some(3), ..Retention::default() },
        Retention { keep_last: Some(1), keep_daily: Some(400), ..Retention::default() },
    ];
    for policy in policies {
        let output = restic(
            &location,
            &[&["forget", "--dry-run", "--json", "--group-by", "host"], &strs(&keep(&policy))[..]]
                .concat(),
        );
        let groups: serde_json::Value = serde_json::from_str(&output).unwrap();
        let theirs: BTreeSet<Timestamp> = groups[0]["keep"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kept| kept["time"].as_str().unwrap().parse().unwrap())
            .collect();
        let fates = decide(&policy, &runs(&times), &TimeZone::UTC);
        let ours: BTreeSet<RunId> =
            fates.iter().filter(|fate| fate.keep).map(|fate| fate.run.clone()).collect();
        assert_eq!(ours, theirs.iter().map(|time| RunId::new(*time, 0)).collect(), "{policy:?}");
        assert!(ours.len() < times.len() && fates.len() == times.len());
        assert!(fates.iter().all(|fate| fate.keep != fate.reasons.is_empty()));
    }
}

#[test]
fn no_retention_keeps_everything() {
    assert!(
        decide(&Retention::default(), &runs(&nights()), &TimeZone::UTC)
            .iter()
            .all(|fate| fate.keep)
    );
}

fn snapshot(run: &RunId, part: &str, time: Timestamp) -> Snapshot {
    Snapshot {
        id: format!("{run}-{part}"),
        tree: String::new(),
        time,
        host: "lab".into(),
        run: run.clone(),
        part: part.to_owned(),
    }
}

fn complete(time: Timestamp) -> CompleteRun {
    let id = RunId::new(time, 0);
    let snapshots =
        ["files", "postgresql", "manifest"].map(|part| snapshot(&id, part, time)).into();
    let json = serde_json::json!({
        "id": id, "host": "lab", "started": time, "finished": time, "complete": true, "downtime_seconds": 1.0,
        "downtime": { "stop": 0.0, "capture": 1.0, "start": 0.0 }, "versions": [], "parts": [],
    });
    let manifest: Manifest = serde_json::from_value(json).unwrap();
    CompleteRun { manifest, snapshots }
}

fn catalog(complete: Vec<CompleteRun>) -> Catalog {
    Catalog {
        host: "lab".into(),
        complete,
        damaged: vec![],
        broken: vec![],
        elsewhere: BTreeMap::new(),
        incomplete: vec![],
    }
}

#[test]
fn a_manifest_goes_before_its_parts_and_old_leftovers_before_both() {
    let times = nights();
    let now = times[2] + SignedDuration::from_secs(3600);
    let (old, young) = (RunId::new(times[0], 1), RunId::new(times[2], 1));
    let catalog = Catalog {
        host: "lab".into(),
        complete: times[..3].iter().map(|time| complete(*time)).collect(),
        damaged: vec![],
        broken: vec![],
        elsewhere: BTreeMap::new(),
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
        host: "lab".into(),
        complete: times[1..5].iter().map(|time| complete(*time)).collect(),
        damaged: vec![(run, "a bad blob".into())],
        broken: vec![],
        elsewhere: BTreeMap::new(),
        incomplete: vec![],
    };
    let policy = Retention { keep_last: Some(1), ..Retention::default() };
    let error = plan(&policy, &catalog, Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("a bad blob"), "{error}");
}

#[test]
fn a_run_with_a_wrong_clock_counts_for_no_other() {
    let times = nights();
    let now = times[9] + SignedDuration::from_secs(3600);
    let later = now + SignedDuration::from_hours(10 * 365 * 24);
    let catalog = Catalog {
        host: "lab".into(),
        complete: times[..10].iter().chain([&later]).map(|time| complete(*time)).collect(),
        damaged: vec![],
        broken: vec![],
        elsewhere: BTreeMap::new(),
        incomplete: vec![],
    };
    for policy in [
        Retention { keep_within: Some(Timespan::from_secs(84 * 3600)), ..Retention::default() },
        Retention { keep_last: Some(4), ..Retention::default() },
    ] {
        let fates = plan(&policy, &catalog, now).unwrap().fates;
        assert_eq!(
            (&fates[0].run, fates[0].keep, &fates[0].reasons[..]),
            (&RunId::new(later, 0), true, &["dated in the future"][..])
        );
        let kept: Vec<&RunId> =
            fates[1..].iter().filter(|fate| fate.keep).map(|fate| &fate.run).collect();
        assert_eq!(
            kept,
            [9, 8, 7, 6].map(|night| RunId::new(times[night], 0)).iter().collect::<Vec<_>>(),
            "{policy:?}"
        );
    }
}

/// The clock was set back for one night: that run has the oldest date, but its manifest names the
/// newest other run as its predecessor.
#[test]
fn a_run_that_does_not_fit_the_order_stays() {
    let times = nights();
    let now = times[9] + SignedDuration::from_secs(3600);
    let mut runs: Vec<CompleteRun> = times[..9].iter().map(|time| complete(*time)).collect();
    let mut wrong = complete(times[0] - SignedDuration::from_hours(24 * 365));
    wrong.manifest.after = Some(RunId::new(times[8], 0));
    let wrong_id = wrong.manifest.id.clone();
    // The night after it has the right date again.
    let mut right = complete(times[9]);
    right.manifest.after = Some(wrong_id.clone());
    runs.insert(0, wrong);
    runs.push(right);
    let catalog = catalog(runs);
    let policy = Retention { keep_last: Some(5), ..Retention::default() };
    let fates = plan(&policy, &catalog, now).unwrap().fates;
    let kept: Vec<&RunId> = fates.iter().filter(|fate| fate.keep).map(|fate| &fate.run).collect();
    let expected: Vec<RunId> = [9, 8, 7, 6, 5].map(|night| RunId::new(times[night], 0)).into();
    assert_eq!(kept, [&wrong_id].into_iter().chain(&expected).collect::<Vec<_>>());
}

/// A prune that removes most runs, or leaves few, must be confirmed.
#[test]
fn most_runs_go_only_if_somebody_agrees() {
    let times = nights();
    let of = |count: usize, policy: &Retention| {
        let now = times[count - 1] + SignedDuration::from_secs(3600);
        plan(policy, &catalog(times[..count].iter().map(|time| complete(*time)).collect()), now)
            .unwrap()
    };
    let last = |count: u32| Retention { keep_last: Some(count), ..Retention::default() };
    assert_eq!(of(10, &last(5)).doubt(), None);
    let most = of(10, &last(4));
    let Some(Doubt::Many(words)) = most.doubt() else { panic!("{:?}", most.doubt()) };
    for part in ["remove 6 of 10", "6 of 10 days", "--yes-remove 6"] {
        assert!(words.contains(part), "{words}");
    }
    assert!(
        most.ensure_confirmed(None).is_err()
            && most.ensure_confirmed(Some(5)).is_err()
            && most.ensure_confirmed(Some(6)).is_ok()
    );
    // With a policy that keeps one run, each night removes one.
    assert_eq!(of(2, &last(1)).doubt(), None);
    let month = Retention { keep_monthly: Some(6), ..Retention::default() };
    assert!(of(1, &month).doubt().is_none());
    let twice = Retention { keep_min: Some(2), ..last(1) };
    assert!(
        matches!(of(2, &twice).doubt(), Some(Doubt::Few(words)) if words.contains("fewer than 2"))
    );
    assert!(
        of(2, &twice).ensure_confirmed(None).is_err()
            && of(2, &twice).ensure_confirmed(Some(1)).is_ok()
    );
}

/// The newest run is not one that is dated in the future, but may be one that is dated too early.
#[test]
fn the_newest_is_the_one_that_came_last() {
    let named =
        |catalog: &Catalog| catalog.pick(None, Timestamp::now()).unwrap().manifest.id.clone();
    let times = nights();
    let three: Vec<CompleteRun> = times[..3].iter().map(|time| complete(*time)).collect();
    let last = three[2].manifest.id.clone();
    assert_eq!(named(&catalog(times[..3].iter().map(|time| complete(*time)).collect())), last);
    let ahead = complete(Timestamp::now() + SignedDuration::from_hours(10 * 365 * 24));
    let of_the_future = ahead.manifest.id.clone();
    let mut all = three;
    all.push(ahead);
    let all = catalog(all);
    assert_eq!(named(&all), last);
    // Later that date has passed, and the run is the newest.
    let then = Timestamp::now() + SignedDuration::from_hours(11 * 365 * 24);
    assert_eq!(all.pick(None, then).unwrap().manifest.id, of_the_future);
    // If every run is dated in the future, the clock may be behind.
    assert_eq!(
        named(&catalog(vec![complete(
            Timestamp::now() + SignedDuration::from_hours(10 * 365 * 24)
        )]))
        .as_str()[..4],
        of_the_future.as_str()[..4]
    );
    let mut early = complete(times[0] - SignedDuration::from_hours(1000));
    early.manifest.after = Some(last);
    let expected = early.manifest.id.clone();
    let mut all: Vec<CompleteRun> = vec![early];
    all.extend(times[..3].iter().map(|time| complete(*time)));
    assert_eq!(named(&catalog(all)), expected);
}

/// With a run every hour, removing most runs of a day needs no confirmation. In the first two days
/// too few runs would remain.
#[test]
fn most_of_a_day_goes_without_a_question() {
    let first: Timestamp = "2026-03-02T00:10:00Z".parse().unwrap();
    let hour = SignedDuration::from_secs(3600);
    let policy = Retention {
        keep_daily: Some(7),
        keep_weekly: Some(4),
        keep_monthly: Some(6),
        ..Retention::default()
    };
    let of = |hours: i32| {
        let times: Vec<Timestamp> = (0..hours).map(|index| first + hour * index).collect();
        plan(
            &policy,
            &catalog(times.iter().map(|time| complete(*time)).collect()),
            first + hour * hours,
        )
        .unwrap()
    };
    for hours in [2, 7, 24, 25, 48] {
        assert!(
            matches!(of(hours).doubt(), Some(Doubt::Few(_))),
            "{hours}: {:?}",
            of(hours).doubt()
        );
    }
    assert_eq!(of(72).doubt(), None);
    assert_eq!(of(72).fates.iter().filter(|fate| fate.keep).count(), 3);
}

/// With a clock that has jumped ahead, all earlier runs look old. A host that was switched off has
/// a gap, too, but its clock is right.
#[test]
fn nothing_goes_by_a_clock_that_jumped() {
    let hour = SignedDuration::from_secs(3600);
    let within = Retention {
        keep_within: Some(Timespan::from_secs(30 * 24 * 3600)),
        ..Retention::default()
    };
    let last = Retention { keep_last: Some(7), ..Retention::default() };
    let (nights, years) = (nights(), SignedDuration::from_hours(10 * 365 * 24));
    let of = |policy: &Retention, times: &[Timestamp]| {
        let now = *times.last().unwrap() + hour;
        plan(policy, &catalog(times.iter().map(|time| complete(*time)).collect()), now)
            .unwrap()
            .doubt()
    };
    let doubted = |doubt: Option<Doubt>| matches!(doubt, Some(Doubt::Many(words)) if words.contains("is the clock right?"));
    let ten = &nights[..10];
    assert_eq!(of(&within, ten), None);
    // The jump counts until as many runs were made after it as must remain.
    for since in 1..=3_usize {
        let times: Vec<Timestamp> = ten
            .iter()
            .copied()
            .chain(nights[10..10 + since].iter().map(|time| *time + years))
            .collect();
        assert!(doubted(of(&within, &times)), "{since}: {:?}", of(&within, &times));
    }
    // After a gap, a new run replaces one old run.
    let off = [ten, &[ten[9] + hour * 24 * 9]].concat();
    assert_eq!(of(&last, &off), None);
    assert!(!doubted(of(&within, &off)));
    let months: Vec<Timestamp> = (0..6).map(|month| ten[0] + hour * 24 * 31 * month).collect();
    assert!(!doubted(of(&last, &months)) && !doubted(of(&within, &months)));
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

/// A repository with the runs of a year, created by the engine's library: the engine itself stores
/// every snapshot with the current time.
struct Year {
    directory: tempfile::TempDir,
    repository: Repository<IndexedIdsStatus>,
}

impl Year {
    fn new() -> Self {
        let directory = memory::directory();
        let location = directory.path().join("ours");
        fs::write(directory.path().join("password"), PASSWORD).unwrap();
        let repository = created(&location).to_indexed_ids().unwrap();
        Self { directory, repository }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Opens the repository with the program's engine.
    fn engine(&self) -> Box<dyn Engine> {
        let location = self.path("ours").to_str().unwrap().to_owned();
        let password = self.path("password");
        quick_repository::open(EngineName::Builtin, location, &password, None)
    }

    fn catalog(&self) -> Catalog {
        self.catalog_of(Whose::Host(HOST))
    }

    fn catalog_of(&self, whose: Whose<'_>) -> Catalog {
        Catalog::read(&*self.engine(), whose, &self.root()).unwrap()
    }

    /// The root directory, with the cached manifests and the records.
    fn root(&self) -> RootDirectory {
        RootDirectory::new(self.path("root"))
    }

    /// Stores `content` as one part of the run that started at `time`.
    fn store(
        &self,
        host: &str,
        run: &RunId,
        part: &str,
        (path, content): (&str, &str),
        time: Timestamp,
    ) -> SnapshotFile {
        let (source, path) = (self.path("source"), Path::new(path));
        let _ = fs::remove_dir_all(&source);
        fs::create_dir(&source).unwrap();
        fs::write(source.join(path.file_name().unwrap()), content).unwrap();
        let mut options = SnapshotOptions::default().host(host.to_owned());
        for tag in ["gitlab-backup".to_owned(), format!("run={run}"), format!("part={part}")] {
            options = options.add_tags(&tag).unwrap();
        }
        let mut snapshot = options.to_snapshot().unwrap();
        // In the host's time zone, like both engines.
        snapshot.time = Moment::from_second(time.as_second())
            .unwrap()
            .to_zoned(rustic_core::jiff::tz::TimeZone::system());
        let options = BackupOptions::default()
            .as_path(path.parent().unwrap().to_owned())
            .no_scan(true)
            .parent_opts(ParentOptions::default().force(true));
        self.repository.backup(&options, &PathList::from_iter([source]), snapshot).unwrap()
    }

    /// Stores a complete run. If `length` is given, its manifest is truncated to that many bytes.
    fn run(&self, time: Timestamp, length: Option<usize>) -> RunId {
        self.run_of(HOST, RunId::new(time, 0), time, length)
    }

    /// The same, for this host and with this id.
    fn run_of(&self, host: &str, id: RunId, time: Timestamp, length: Option<usize>) -> RunId {
        let mut parts = Vec::new();
        for part in PARTS {
            let stored =
                self.store(host, &id, part, ("/srv/content", &format!("{part} of {id}")), time);
            parts.push(serde_json::json!({
                "name": part, "snapshot": stored.id.to_hex().as_str(), "paths": ["/srv/content"], "bytes": 1, "files": 1, "seconds": 0.1,
                "checksum": format!("sha256-tree:{}", stored.tree.to_hex().as_str()),
            }));
        }
        let manifest = serde_json::json!({
            "id": id, "host": host, "started": time, "finished": time, "complete": true, "downtime_seconds": 1.0,
            "downtime": { "stop": 0.0, "capture": 1.0, "start": 0.0 }, "versions": [], "parts": parts,
        });
        let manifest = manifest.to_string();
        self.store(
            host,
            &id,
            MANIFEST,
            (paths::MANIFEST, &manifest[..length.unwrap_or(manifest.len())]),
            time,
        );
        id
    }
}

/// Each snapshot's run and part.
fn inventory(location: &Path) -> BTreeSet<Vec<String>> {
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&restic(location, &["snapshots", "--json"])).unwrap();
    all.iter().map(|snapshot| serde_json::from_value(snapshot["tags"].clone()).unwrap()).collect()
}

#[tokio::test]
async fn a_year_of_runs_is_pruned_as_restic_prunes_it_and_a_truncated_manifest_stops_that() {
    let year = Year::new();
    let (ours, theirs) = (year.path("ours"), year.path("theirs"));
    let times = &nights()[..size(36, 370)];
    for time in times {
        year.run(*time, None);
    }
    // Each backup wrote its own index: a single one is read faster.
    restic(&ours, &["rebuild-index"]);
    assert!(Command::new("cp").arg("-a").args([&ours, &theirs]).status().unwrap().success());
    let policy = Retention {
        keep_last: Some(3),
        keep_daily: Some(7),
        keep_weekly: Some(5),
        keep_monthly: Some(12),
        keep_yearly: Some(2),
        keep_within: Some(Timespan::from_secs(10 * 24 * 3600)),
        keep_min: None,
    };
    let catalog = year.catalog();
    assert_eq!(
        (catalog.complete.len(), catalog.incomplete.len()),
        (times.len(), 0),
        "{:?}",
        catalog.damaged.first()
    );
    let planned = plan(&policy, &catalog, Timestamp::now()).unwrap();
    apply(&planned, &*year.engine(), Base::host(&year.root()), PATIENCE, async || Ok(()))
        .await
        .unwrap();
    // restic applies a policy to each group of snapshots: here to each part of the runs.
    for part in [PARTS[0], PARTS[1], MANIFEST] {
        restic(
            &theirs,
            &[
                &["forget", "--group-by", "host", "--tag", &format!("part={part}")],
                &strs(&keep(&policy))[..],
            ]
            .concat(),
        );
    }
    let kept = inventory(&ours);
    assert_eq!(kept, inventory(&theirs));
    assert!(
        kept.len().is_multiple_of(3) && kept.len() > 3 * size(10, 20) && kept.len() < 3 * 40,
        "{} parts are kept",
        kept.len()
    );
    restic(&ours, &["check", "--read-data"]);
    let catalog = year.catalog();
    assert_eq!((catalog.complete.len(), catalog.incomplete.len()), (kept.len() / 3, 0));

    let damaged = year.run(Timestamp::now(), Some(200));
    let before = inventory(&ours);
    let catalog = year.catalog();
    assert_eq!(
        (catalog.complete.len(), catalog.incomplete.len()),
        (kept.len() / 3, 0),
        "it hides no other run"
    );
    assert_eq!(catalog.damaged.len(), 1);
    assert_eq!(catalog.damaged[0].0, damaged);
    let error =
        plan(&Retention { keep_last: Some(1), ..Retention::default() }, &catalog, Timestamp::now())
            .unwrap_err()
            .to_string();
    assert!(error.contains("nothing is pruned") && error.contains(damaged.as_str()), "{error}");
    assert_eq!(inventory(&ours), before);
}

#[tokio::test]
async fn each_host_has_its_own_runs() {
    let year = Year::new();
    let times = &nights()[..6];
    let ours: Vec<RunId> = times[..3].iter().map(|time| year.run(*time, None)).collect();
    let theirs: Vec<RunId> = times[3..]
        .iter()
        .map(|time| year.run_of("staging", RunId::new(*time, 0), *time, None))
        .collect();
    year.store(
        "staging",
        &RunId::new(times[0], 7),
        "presync",
        ("/srv/content", "under way"),
        times[0],
    );
    let catalog = year.catalog();
    assert_eq!(catalog.pick(None, Timestamp::now()).unwrap().manifest.id, ours[2]);
    assert!(catalog.find(&theirs[2]).is_err());
    assert!(catalog.of_others().unwrap().contains("3 of 'staging'"), "{:?}", catalog.of_others());
    assert_eq!(
        year.catalog_of(Whose::Run(&theirs[0])).find(&theirs[0]).unwrap().manifest.host,
        "staging"
    );
    let none = year
        .catalog_of(Whose::Host("nobody"))
        .pick(None, Timestamp::now())
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        none.contains("no complete run of host 'nobody'")
            && none.contains("3 of 'lab', 3 of 'staging'"),
        "{none}"
    );
    // Runs of several hosts with the same id.
    year.run_of("staging", ours[0].clone(), times[0], None);
    year.run_of("third", ours[0].clone(), times[0], None);
    assert!(
        Catalog::read(&*year.engine(), Whose::Run(&ours[0]), &year.root())
            .unwrap_err()
            .to_string()
            .contains("--host")
    );
    let policy = Retention { keep_last: Some(1), ..Retention::default() };
    let planned = plan(&policy, &year.catalog(), Timestamp::now()).unwrap();
    apply(&planned, &*year.engine(), Base::host(&year.root()), PATIENCE, async || Ok(()))
        .await
        .unwrap();
    let kept = |host: &str| {
        year.catalog_of(Whose::Host(host))
            .complete
            .iter()
            .map(|run| run.manifest.id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(HOST), [ours[2].clone()]);
    assert_eq!(kept("staging"), [&[ours[0].clone()], &theirs[..]].concat());
    assert_eq!(
        year.catalog_of(Whose::Host("staging")).incomplete.len(),
        1,
        "another host's first pass is under way"
    );
}

#[test]
fn a_run_is_found_again_whatever_its_snapshots_are_called() {
    let year = Year::new();
    let times = &nights()[..4];
    let runs: Vec<RunId> = times.iter().map(|time| year.run(*time, None)).collect();
    let whole = |catalog: &Catalog, engine: &dyn Engine| {
        assert_eq!(
            catalog.complete.iter().map(|run| run.manifest.id.clone()).collect::<Vec<_>>(),
            runs,
            "{:?}",
            catalog.broken
        );
        for part in catalog.complete.iter().flat_map(|run| &run.manifest.parts) {
            let mut found = 0;
            engine
                .list(&part.snapshot, &mut |_, size| found += usize::from(size.is_some()))
                .unwrap();
            assert_eq!(found, 1, "{}", part.name);
        }
    };
    whole(&year.catalog(), &*year.engine());
    restic(&year.path("ours"), &["tag", "--add", "kept"]);
    whole(&year.catalog(), &*year.engine());
    // Copied to another repository, in which every snapshot has another id.
    let copy = year.path("copy");
    let (ours, password) = (year.path("ours"), year.path("password"));
    quick_repository::create(EngineName::Restic, &copy);
    restic(
        &copy,
        &[
            "copy",
            "--from-repo",
            ours.to_str().unwrap(),
            "--from-password-file",
            password.to_str().unwrap(),
        ],
    );
    let location = copy.to_str().unwrap().to_owned();
    let engine = quick_repository::open(EngineName::Builtin, location, &password, None);
    let root = RootDirectory::new(year.path("root-of-copy"));
    whole(&Catalog::read(&*engine, Whose::Host(HOST), &root).unwrap(), &*engine);
    // Rewritten and missing parts are named; the other runs stay complete.
    let id = |run: usize, part: usize| {
        year.catalog().complete[run].manifest.parts[part].snapshot.clone()
    };
    let (rewritten, gone) = (id(0, 0), id(1, 1));
    year.store(HOST, &runs[0], PARTS[0], ("/srv/content", "another"), times[0]);
    year.engine().forget(&[rewritten, gone], PATIENCE).unwrap();
    let catalog = year.catalog();
    let broken: Vec<&str> = catalog.broken.iter().map(|(_, why)| why.as_str()).collect();
    assert!(
        matches!(broken[..], [one, two] if one.contains("was rewritten") && two.contains("'postgresql'") && two.contains("is gone")),
        "{broken:?}"
    );
    assert!(catalog.find(&runs[0]).map(drop).unwrap_err().to_string().contains("was rewritten"));
    assert_eq!(catalog.complete.len(), 2);
    let planned =
        plan(&Retention { keep_last: Some(1), ..Retention::default() }, &catalog, Timestamp::now())
            .unwrap();
    assert_eq!(planned.fates.len(), 2, "what is broken is not judged");
}
