//! Where things are kept on the host. One place, because units, helpers and commands must agree on them.

/// What outlives a run: records, cached manifests.
pub const STATE: &str = "/var/lib/gitlab-backup";
/// What a reboot may forget: the current run, the record of paused units.
pub const RUNTIME: &str = "/run/gitlab-backup";
/// One file per run, failed ones too.
pub const RUNS: &str = "/var/lib/gitlab-backup/runs";
/// Manifests that were read from the repository, so that `list` need not read them again.
pub const MANIFESTS: &str = "/var/lib/gitlab-backup/manifests";
/// Dumps on their way into the repository. The same path in every run, so that the repository finds yesterday's as parent.
pub const STAGING: &str = "/var/lib/gitlab-backup/staging";
/// The run that is going on.
pub const CURRENT_RUN: &str = "/run/gitlab-backup/run.json";
/// `GITLAB_BACKUP_RUN_ID=` for the units, systemd.exec(5) EnvironmentFile=.
pub const ENVIRONMENT: &str = "/run/gitlab-backup/environment";
/// The units that resume has to start again.
pub const PAUSED: &str = "/run/gitlab-backup/paused.json";
/// The repository's master key for the units of this run, readable by root only: deriving it from the password again would cost each of
/// them, also the one in the window, half a second. Gone with the run.
pub const REPOSITORY_KEY: &str = "/run/gitlab-backup/repository.key";
/// The exported snapshots; owned by the PostgreSQL user, gone with its unit.
pub const PGSNAPSHOT: &str = "/run/gitlab-backup-pgsnapshot";
/// The default configuration file.
pub const CONFIG: &str = "/etc/gitlab-backup/config.toml";
