//! All paths on the host. Units, helpers and commands must agree on them.

use std::path::{Path, PathBuf};

/// The root directory: `/`, except in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDirectory(PathBuf);

impl RootDirectory {
    /// The root directory of this host.
    pub fn host() -> Self {
        Self("/".into())
    }

    /// Another root directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The path below the root directory.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// State that outlasts a run: records, cached manifests.
pub const STATE: &str = "/var/lib/gitlab-backup";
/// State that is lost with a reboot: the current run, the record of paused units.
pub const RUNTIME: &str = "/run/gitlab-backup";
/// The records of runs, one file per run, also for failed runs.
pub const RUNS: &str = "/var/lib/gitlab-backup/runs";
/// The result of the last verify.
pub const VERIFIED: &str = "/var/lib/gitlab-backup/verified.json";
/// The result of the last verify with a drill.
pub const DRILLED: &str = "/var/lib/gitlab-backup/drilled.json";
/// Cached manifests of the repository.
pub const MANIFESTS: &str = "/var/lib/gitlab-backup/manifests";
/// The staging directory of dumps. The same path in every run, so that the repository finds the
/// previous dumps as parent.
pub const STAGING: &str = "/var/lib/gitlab-backup/staging";
/// The records of the parts that the run has stored so far, for the manifest.
pub const PARTS: &str = "/var/lib/gitlab-backup/staging/parts";
/// The manifest, before it is stored.
pub const MANIFEST: &str = "/var/lib/gitlab-backup/staging/parts/manifest/manifest.json";
/// The complete run that was made last, whatever its date says.
pub const NEWEST_RUN: &str = "/var/lib/gitlab-backup/newest.json";
/// The current run, or the last one since boot.
pub const CURRENT_RUN: &str = "/run/gitlab-backup/run.json";
/// `EnvironmentFile=` of the units, with the id of the run.
pub const ENVIRONMENT: &str = "/run/gitlab-backup/environment";
/// The unified control group hierarchy.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// The frozen units.
pub const FROZEN_UNITS: &str = "/run/gitlab-backup/frozen-units.json";
/// systemd's socket for sd_notify(3).
pub const NOTIFY: &str = "/run/systemd/notify";
/// What a hold has frozen.
pub const HELD: &str = "/run/gitlab-backup/held.json";
/// How the hold of this run went.
pub const HOLD: &str = "/run/gitlab-backup/hold.json";
/// The mount points of volume snapshots.
pub const VOLUMES: &str = "/run/gitlab-backup/volumes";
/// How this run captures each path.
pub const FREEZE: &str = "/run/gitlab-backup/freeze.json";
/// The files that the first pass found.
pub const SEEN: &str = "/var/lib/gitlab-backup/staging/parts/seen";
/// The statistics of the first pass.
pub const PASS: &str = "/run/gitlab-backup/pass.json";
/// The files as they were in the window.
pub const FROZEN: &str = "/var/lib/gitlab-backup/staging/parts/frozen";
/// The directories of clones beside GitLab's. They outlast a reboot, and so does this list.
pub const CLONES: &str = "/var/lib/gitlab-backup/clones.json";
/// The files that cannot be backed up and were left out of this run.
pub const LEFT_OUT: &str = "/var/lib/gitlab-backup/staging/parts/left-out";
/// The paused units, which resume starts again.
pub const PAUSED: &str = "/run/gitlab-backup/paused.json";
/// The units that were told to end what is in progress, before they are stopped.
pub const DRAINED: &str = "/run/gitlab-backup/drained.json";
/// The repository's master key, for the units of this run; readable by root only. To derive it from
/// the password takes half a second, also in the window. Removed at the end of the run.
pub const REPOSITORY_KEY: &str = "/run/gitlab-backup/repository.key";
/// Exists if GitLab did not answer before it was stopped: resume does not wait for its answer.
pub const UNANSWERED: &str = "/run/gitlab-backup/unanswered";
/// The units of GitLab that ran when its readiness was requested.
pub const ASKED: &str = "/run/gitlab-backup/asked.json";
/// The proxies as configured at the start of the run.
pub const PROXIES: &str = "/run/gitlab-backup/proxies.json";
/// Exists while proxy units adopt their services: they start and stop none.
pub const ADOPTING: &str = "/run/gitlab-backup/adopting";
/// The exported snapshots; owned by the PostgreSQL user, removed with its unit.
pub const PGSNAPSHOT: &str = "/run/gitlab-backup-pgsnapshot";
/// The state of an unfinished restore, and the record of the last one.
pub const RESTORE: &str = "/var/lib/gitlab-backup/restore";
/// The journal of the replacement: which steps are done.
pub const RESTORE_JOURNAL: &str = "/var/lib/gitlab-backup/restore/journal.json";
/// Replaced data that could not be removed when a restore finished.
pub const RESTORE_LEFT: &str = "/var/lib/gitlab-backup/restore/left.json";
/// The record of the last restore.
pub const RESTORE_RECORD: &str = "/var/lib/gitlab-backup/restore/record.json";
/// The files on the host that the run does not contain.
pub const RESTORE_KEPT: &str = "/var/lib/gitlab-backup/restore/kept.json";
/// Locked by the command that requested a restore, until the restore has ended.
pub const RESTORE_LOCK: &str = "/run/gitlab-backup/restore.lock";
/// The request that no restore has picked up yet.
pub const RESTORE_REQUEST: &str = "/run/gitlab-backup/restore-request.json";
/// The request of the running restore.
pub const RESTORE_ASKED: &str = "/run/gitlab-backup/restore-asked.json";
/// The plan of the running restore.
pub const RESTORE_PLAN: &str = "/run/gitlab-backup/restore-plan.json";
/// Notes of the units of a restore, for its record.
pub const RESTORE_NOTES: &str = "/run/gitlab-backup/restore-notes.json";
/// The directory for the extracted dumps of a restore, in the staging directory.
pub const RESTORE_DUMPS: &str = "/var/lib/gitlab-backup/staging/restore";
/// Configuration that a restore extracts for comparison, in a directory per run.
pub const RESTORED_CONFIGURATION: &str = "/var/lib/gitlab-backup/restored";
/// The password that `install` creates for a new repository.
pub const PASSWORD: &str = "/etc/gitlab-backup/repository.password";
/// The same for the NixOS module, which does not write to /etc.
pub const PASSWORD_ON_NIXOS: &str = "/var/lib/gitlab-backup/repository.password";
/// The directories that `PrivateTmp=` hides, systemd.exec(5).
pub const TMP: [&str; 2] = ["/tmp", "/var/tmp"];
/// The default configuration file.
pub const CONFIG: &str = "/etc/gitlab-backup/config.toml";
/// The facts of the host, for units that cannot see all of it. Written by install and the first
/// unit of each run.
pub const HOST: &str = "/var/lib/gitlab-backup/host.json";
/// The calendar of each timer when it was last started.
pub const CALENDARS: &str = "/var/lib/gitlab-backup/calendars.json";
/// The directory of systemd's time stamps of timers, systemd.timer(5) `Persistent=`.
pub const TIMERS: &str = "/var/lib/systemd/timers";
/// The silences to end; outlasts a reboot.
pub const SILENCES: &str = "/var/lib/gitlab-backup/silences.json";
/// Which reports were delivered.
pub const REPORTED: &str = "/var/lib/gitlab-backup/told.json";
