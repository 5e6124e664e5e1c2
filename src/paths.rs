//! Where things are kept on the host. One place, because units, helpers and commands must agree on
//! them.

use std::path::{Path, PathBuf};

/// The directory below which all of these are: `/`, but for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDirectory(PathBuf);

impl RootDirectory {
    /// The host's own.
    pub fn host() -> Self {
        Self("/".into())
    }

    /// Another one.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Where the host's `path` is below it.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What outlives a run: records, cached manifests.
pub const STATE: &str = "/var/lib/gitlab-backup";
/// What a reboot may forget: the current run, the record of paused units.
pub const RUNTIME: &str = "/run/gitlab-backup";
/// One file per run, failed ones too.
pub const RUNS: &str = "/var/lib/gitlab-backup/runs";
/// How the last verify went.
pub const VERIFIED: &str = "/var/lib/gitlab-backup/verified.json";
/// How the last verify with a drill went.
pub const DRILLED: &str = "/var/lib/gitlab-backup/drilled.json";
/// Manifests that were read from the repository, so that `list` need not read them again.
pub const MANIFESTS: &str = "/var/lib/gitlab-backup/manifests";
/// Dumps on their way into the repository. The same path in every run, so that the repository finds
/// yesterday's as parent.
pub const STAGING: &str = "/var/lib/gitlab-backup/staging";
/// The newest complete run, by the order in which they came and not by their dates.
pub const NEWEST_RUN: &str = "/var/lib/gitlab-backup/newest.json";
/// The run that is going on.
pub const CURRENT_RUN: &str = "/run/gitlab-backup/run.json";
/// `GITLAB_BACKUP_RUN_ID=` for the units, systemd.exec(5) EnvironmentFile=.
pub const ENVIRONMENT: &str = "/run/gitlab-backup/environment";
/// The unified control group hierarchy.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// The units that are frozen and have to be thawed.
pub const FROZEN_UNITS: &str = "/run/gitlab-backup/frozen-units.json";
/// Where snapshots of the files' volumes are mounted.
pub const VOLUMES: &str = "/run/gitlab-backup/volumes";
/// How each path of the files is captured in this run.
pub const FREEZE: &str = "/run/gitlab-backup/freeze.json";
/// What the first pass saw.
pub const SEEN: &str = "/var/lib/gitlab-backup/staging/parts/seen";
/// How the first pass went.
pub const PASS: &str = "/run/gitlab-backup/pass.json";
/// The files of this run, as they were in the window.
pub const FROZEN: &str = "/var/lib/gitlab-backup/staging/parts/frozen";
/// Directories of ours beside GitLab's, in which content is cloned; outlives a reboot, as they do.
pub const CLONES: &str = "/var/lib/gitlab-backup/clones.json";
/// What no backup can hold and was left out of this run.
pub const LEFT_OUT: &str = "/var/lib/gitlab-backup/staging/parts/left-out";
/// The units that resume has to start again.
pub const PAUSED: &str = "/run/gitlab-backup/paused.json";
/// The repository's master key for the units of this run, readable by root only: deriving it from
/// the password again would cost each of them, also the one in the window, half a second. Gone with
/// the run.
pub const REPOSITORY_KEY: &str = "/run/gitlab-backup/repository.key";
/// GitLab did not answer before it was stopped, so its answer is not waited for.
pub const UNANSWERED: &str = "/run/gitlab-backup/unanswered";
/// What of GitLab ran when it was asked.
pub const ASKED: &str = "/run/gitlab-backup/asked.json";
/// The proxies as they were configured when the run began.
pub const PROXIES: &str = "/run/gitlab-backup/proxies.json";
/// While it is there, proxy units follow their services and touch none.
pub const ADOPTING: &str = "/run/gitlab-backup/adopting";
/// The exported snapshots; owned by the PostgreSQL user, gone with its unit.
pub const PGSNAPSHOT: &str = "/run/gitlab-backup-pgsnapshot";
/// What a restore has to finish or put back, and how the last one went.
pub const RESTORE: &str = "/var/lib/gitlab-backup/restore";
/// How far the replacement of a restore is. Outlives a reboot, as what it replaces does.
pub const RESTORE_JOURNAL: &str = "/var/lib/gitlab-backup/restore/journal.json";
/// What could not be removed when a restore was finished.
pub const RESTORE_LEFT: &str = "/var/lib/gitlab-backup/restore/left.json";
/// The last restore.
pub const RESTORE_RECORD: &str = "/var/lib/gitlab-backup/restore/record.json";
/// What is not in the run, found before anything is replaced.
pub const RESTORE_KEPT: &str = "/var/lib/gitlab-backup/restore/kept.json";
/// Held by the one that asks for a restore, until it is over.
pub const RESTORE_TURN: &str = "/run/gitlab-backup/restore.lock";
/// What the next restore is asked for.
pub const RESTORE_REQUEST: &str = "/run/gitlab-backup/restore-request.json";
/// What the restore that goes on was asked for.
pub const RESTORE_ASKED: &str = "/run/gitlab-backup/restore-asked.json";
/// What a restore will do.
pub const RESTORE_PLAN: &str = "/run/gitlab-backup/restore-plan.json";
/// What the units of a restore have to tell.
pub const RESTORE_NOTES: &str = "/run/gitlab-backup/restore-notes.json";
/// Where a restore lays its dumps out; goes with the staging area.
pub const RESTORE_DUMPS: &str = "/var/lib/gitlab-backup/staging/restore";
/// Configuration that a restore lays out for comparison, below the run's id.
pub const RESTORED_CONFIGURATION: &str = "/var/lib/gitlab-backup/restored";
/// Where `install` makes the password of a new repository.
pub const PASSWORD: &str = "/etc/gitlab-backup/repository.password";
/// Likewise, the NixOS module: there, what is in /etc is the configuration's.
pub const PASSWORD_ON_NIXOS: &str = "/var/lib/gitlab-backup/repository.password";
/// What systemd.exec(5) `PrivateTmp=` hides.
pub const TMP: [&str; 2] = ["/tmp", "/var/tmp"];
/// The default configuration file.
pub const CONFIG: &str = "/etc/gitlab-backup/config.toml";
/// What was found on the host, by whoever could see all of it: install, and the first unit of each
/// run.
pub const HOST: &str = "/var/lib/gitlab-backup/host.json";
/// The calendar of each timer, as it was when that was last started.
pub const CALENDARS: &str = "/var/lib/gitlab-backup/calendars.json";
/// Where systemd notes when a timer was last due, systemd.timer(5) `Persistent=`.
pub const TIMERS: &str = "/var/lib/systemd/timers";
/// The silences that are to be ended; outlives a reboot.
pub const SILENCES: &str = "/var/lib/gitlab-backup/silences.json";
/// Whom a run has been told to, and whom it has not yet.
pub const TOLD: &str = "/var/lib/gitlab-backup/told.json";
