//! The configuration: TOML → raw → validated. The only way to a [`Config`] is through validation.
//!
//! Facts about the host are read only through a [`host::Host`]. Nothing here knows the generated
//! units, D-Bus or processes.

pub mod declared;
mod error;
mod found;
mod hold;
pub mod host;
mod layout;
mod phases;
mod raw;
mod unit_files;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{beneath, mounts, own};
use crate::monitoring::Monitoring;
pub use crate::schema::Problem;
use crate::values::{SecretSource, Timespan, UnitName};

pub use error::ConfigError;
pub use found::HostFacts;
pub use hold::{Fallback, Hold};
use host::Host;
pub use layout::{OMNIBUS, SUPERVISOR, is_recognised};
pub use phases::{Phase, Phases};

/// The maximum size of the file in bytes: half of systemd's limit for all credentials of a unit,
/// systemd.exec(5) `LoadCredential=`.
const SIZE_MAX: usize = 512 * 1024;

/// A validated configuration. Keys that the file leaves out have their defaults, some of which the
/// layout finds on the host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The absolute path of the file. The units pass it to the helpers.
    pub source: PathBuf,
    /// What to stop, and how to check that GitLab is up again.
    pub gitlab: Gitlab,
    /// When to run.
    pub schedule: Schedule,
    /// `None` with `enable = false`.
    pub postgresql: Option<Postgresql>,
    /// The Redis servers to save; may be empty.
    pub redis: Vec<Redis>,
    /// What the file backup saves.
    pub files: Files,
    /// Where backups are stored.
    pub repository: Repository,
    /// Which runs are kept, and for how long.
    pub retention: Retention,
    /// When and how the newest run is verified.
    pub verify: Verify,
    /// What is silenced during a run, and who receives its report.
    pub monitoring: Monitoring,
    /// The enabled `[[step]]`s, in the order of the file.
    pub steps: Vec<Step>,
    /// What the layout found on the host, for the helpers that cannot see all of it.
    pub found: HostFacts,
}

impl Config {
    /// Reads and validates the file at `path`. Defaults come from `host`.
    ///
    /// # Errors
    /// With every finding, if the file cannot be read or is invalid.
    pub fn load(path: &Path, host: &Host) -> Result<Self, ConfigError> {
        Self::parse(&Self::read(path)?, path, host)
    }

    fn read(path: &Path) -> Result<String, ConfigError> {
        let text = own::read_text(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        // Root runs commands from this file, so only root may be able to change it.
        if rustix::process::geteuid().is_root() {
            beneath::trusted(path)
                .map_err(|error| ConfigError::general(path, format!("{error:#}"), None))?;
        }
        Ok(text)
    }

    /// Like [`Config::load`], for commands that only read the repository. They also work on a host
    /// without GitLab: missing keys of the sections that describe GitLab are not reported.
    ///
    /// # Errors
    /// With every other finding, if the file cannot be read or is invalid.
    pub fn load_for_repository(path: &Path, host: &Host) -> Result<Self, ConfigError> {
        let text = Self::read(path)?;
        Self::validate(&text, path, host, |finding| {
            let section = finding.key.split(['.', '[']).next().unwrap_or_default();
            finding.line.is_none() && ["gitlab", "files", "postgresql", "redis"].contains(&section)
        })
    }

    /// Validates `text`, which was read from `source`.
    ///
    /// # Errors
    /// With every finding, if `text` is invalid.
    pub fn parse(text: &str, source: &Path, host: &Host) -> Result<Self, ConfigError> {
        Self::validate(text, source, host, |_| false)
    }

    /// Validates `text`, without the findings that are `ignored`.
    fn validate(
        text: &str,
        source: &Path,
        host: &Host,
        ignored: impl Fn(&Problem) -> bool,
    ) -> Result<Self, ConfigError> {
        let absolute =
            std::path::absolute(source).map_err(|error| ConfigError::unreadable(source, &error))?;
        // The units contain the path, and pass the file to unprivileged helpers as a credential.
        if let Err(refusal) = validate::path(&absolute.to_string_lossy()) {
            return Err(ConfigError::general(source, refusal.message, refusal.allowed));
        }
        if text.len() > SIZE_MAX {
            return Err(ConfigError::general(
                source,
                format!("has {} bytes", text.len()),
                Some(format!("at most {SIZE_MAX} bytes")),
            ));
        }
        let (raw, mut findings) = raw::read(text);
        let Some(raw) = raw else { return Err(ConfigError::new(source, findings)) };
        let (mut config, invalid) = validate::config(raw, text, &absolute, host);
        config.files.behind_links = host.behind_links(&config.files.paths);
        config.files.volumes =
            config.repository.engine == EngineName::Builtin && config.files.may_be_on_volumes(host);
        // A key that was left out because of its type must not be reported as missing too.
        let reported: Vec<_> = findings.iter().map(|finding| finding.key.clone()).collect();
        findings.extend(invalid.into_iter().filter(|finding| {
            !reported.iter().any(|key| is_within(key, &finding.key) || is_within(&finding.key, key))
        }));
        findings.retain(|finding| !ignored(finding));
        if findings.is_empty() { Ok(config) } else { Err(ConfigError::new(source, findings)) }
    }
}

/// Whether `key` is `outer` or lies inside it.
fn is_within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `[gitlab]`
#[derive(Debug, Clone)]
pub struct Gitlab {
    /// The layout that supplied the defaults; never `auto`.
    pub layout: String,
    /// The units that write GitLab's data and are stopped, in the order given; unique, at least
    /// one.
    pub writers: Vec<UnitName>,
    /// The writers that are stopped without their dependents, because those must stay up.
    pub stopped_alone: Vec<UnitName>,
    /// Units that stay up although the layout counts them among the writers: they may serve a
    /// maintenance page.
    pub stays_up: Vec<UnitName>,
    /// The services that systemd does not manage. Each is represented by a proxy unit; the proxies
    /// of services that write are among `writers`.
    pub proxies: Vec<Proxy>,
    /// How the writers are kept from writing.
    pub quiesce: Quiesce,
    /// How GitLab is held, with [`Quiesce::Hold`].
    pub hold: Hold,
    /// The URL that answers 2xx when GitLab is ready.
    pub readiness: Option<ReadinessUrl>,
    /// The longest time that GitLab may be down.
    pub max_downtime: Timespan,
    /// How long resume waits for a unit that is still stopping before it kills the unit. Needed
    /// only after a failure: otherwise the window opens only after every stop is complete.
    pub stop_grace: Timespan,
    /// `settle`: how long a run waits for units that are starting or stopping before it stops
    /// GitLab.
    pub settle: Timespan,
    /// Which writers are stopped in which phase.
    pub phases: Phases,
    /// `drain`: how long pushes and fetches may take to end before GitLab is stopped.
    pub drain: Timespan,
}

impl Gitlab {
    /// The writers that the window's `Conflicts=` stops: all except `stopped_alone`.
    pub fn conflicting(&self) -> impl Iterator<Item = &UnitName> {
        self.writers.iter().filter(|writer| !self.stopped_alone.contains(writer))
    }

    /// Whether `unit` is a proxy unit.
    pub fn is_proxy(&self, unit: &UnitName) -> bool {
        self.proxies.iter().any(|proxy| proxy.unit() == *unit)
    }

    /// The proxies whose units are writers. Excludes the proxy of a Redis, which only a restore
    /// restarts.
    pub fn writing_proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().filter(|proxy| self.writers.contains(&proxy.unit()))
    }
}

/// `[[gitlab.proxy]]`: a service that is not managed by systemd but by runit, a container engine,
/// supervisord or an init script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Lower case letters, digits, `-` and `_`; unique; becomes part of the unit's name.
    pub name: String,
    /// argv with an absolute program. Succeeds also if the service is up already.
    pub start: Vec<String>,
    /// argv with an absolute program. Succeeds also if the service is down already.
    pub stop: Vec<String>,
    /// argv with an absolute program. Only this command decides whether the service is up.
    pub status: Vec<String>,
    /// The time limit of a start or a stop, in seconds.
    pub timeout: u64,
    /// Names of proxies that are started before this one and stopped after it.
    pub after: Vec<String>,
}

impl Proxy {
    /// The prefix of the proxy units' names.
    pub const PREFIX: &'static str = "gitlab-backup-proxy-";
    /// The default of `timeout`, in seconds. GitLab's own tools wait 30 seconds, and Gitaly gives
    /// running requests a minute.
    pub(crate) const TIMEOUT: u64 = 90;

    /// The proxy unit.
    pub fn unit(&self) -> UnitName {
        UnitName::generated(format!("{}{}.service", Self::PREFIX, self.name))
    }
}

/// `[gitlab] quiesce`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiesce {
    /// The writers are stopped, so that each ends its work in order, and started again.
    Stop,
    /// The writers' control groups are frozen. The backup shows the data as after a power failure.
    Freeze,
    /// GitLab is held still while nothing is in progress; if that is not possible, it is stopped.
    Hold,
}

impl Quiesce {
    /// Whether a run may stop the writers.
    pub fn may_stop(self) -> bool {
        self != Self::Freeze
    }
}

/// The URL of GitLab's readiness check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadinessUrl {
    /// `http://` or `https://`.
    Http(String),
    /// `unix:/path/to/socket` or `unix:/path/to/socket:/url/path`.
    Unix {
        /// The socket.
        socket: PathBuf,
        /// The path of the request, `/-/readiness` by default.
        path: String,
    },
}

/// `[schedule]`
#[derive(Debug, Clone)]
pub struct Schedule {
    /// `OnCalendar=`, checked against systemd.time(7).
    pub calendar: String,
    /// `RandomizedDelaySec=`.
    pub randomized_delay: Timespan,
}

/// `[postgresql]`
#[derive(Debug, Clone)]
pub struct Postgresql {
    /// Socket directory (absolute path) or host.
    pub host: String,
    /// TCP port, also part of the socket's name.
    pub port: u16,
    /// The role that backs up.
    pub user: String,
    /// `os-user`: the OS user that the units run as. Default: the role's name for a socket,
    /// `gitlab-backup` for a host.
    pub os_user: String,
    /// `restore-user`: the role that restores, and that creates the role that backs up. Default:
    /// `user`.
    pub restore_user: String,
    /// `restore-os-user`: the OS user that connects as `restore_user`. Default: `os_user`.
    pub restore_os_user: String,
    /// `None`: all databases except the templates.
    pub databases: Option<Vec<String>>,
    /// `pg_dump --jobs`.
    pub jobs: u16,
    /// How long DDL on a table may wait for the table's dump before the run is aborted.
    pub ddl_wait: Timespan,
    /// `password-file` or `password-credential`.
    pub password: Option<SecretSource>,
    /// The directory of pg_dump, pg_dumpall, pg_restore and vacuumdb, if not on `PATH`.
    pub bin_dir: Option<PathBuf>,
}

impl Postgresql {
    /// Whether connections go through a socket of this host.
    pub fn by_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The settings with the role and the OS user of a restore.
    pub fn restoring(&self) -> Self {
        Self {
            user: self.restore_user.clone(),
            os_user: self.restore_os_user.clone(),
            ..self.clone()
        }
    }
}

/// `[[redis]]`
#[derive(Debug, Clone)]
pub struct Redis {
    /// The name in dumps and messages; unique; letters, digits, `-` and `_`.
    pub name: String,
    /// Where it listens.
    pub address: RedisAddress,
    /// The ACL user, from the URL.
    pub username: Option<String>,
    /// `password-file` or `password-credential`.
    pub password: Option<SecretSource>,
    /// How long a save may take.
    pub timeout: Timespan,
    /// The unit of the server, for a restore. `None`: found by the running server's process.
    pub unit: Option<UnitName>,
}

/// Where a Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `redis://host:port` or `rediss://host:port`.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, 6379 by default.
        port: u16,
        /// `rediss://`.
        tls: bool,
    },
}

/// `[files]`
#[derive(Debug, Clone)]
pub struct Files {
    /// The paths to save: absolute, normalised, none inside another. May be empty with `command`.
    pub paths: Vec<PathBuf>,
    /// Patterns as in gitignore(5).
    pub exclude: Vec<String>,
    /// Directories and storage addresses of GitLab's configuration that the backup leaves out on
    /// purpose: no check reports them.
    pub omit: Vec<String>,
    /// A program that replaces the built-in file backup; argv with an absolute program.
    pub command: Option<Vec<String>>,
    /// Whether a first pass runs while GitLab is up, so that the window only captures what changed
    /// since.
    pub presync: bool,
    /// How paths are captured that are not in `methods`.
    pub snapshot: Method,
    /// `[[files.path]] snapshot`, by path.
    pub methods: BTreeMap<PathBuf, Method>,
    /// The size of snapshots of classic logical volumes, in the form of lvcreate(8) `-l` or `-L`.
    pub lvm_snapshot_size: String,
    /// Whether a path may be on a file system that supports snapshots. True if the host's mounts
    /// cannot be read.
    pub volumes: bool,
    /// The real paths of the `paths` that are reached through a symlink: a restore writes there.
    pub behind_links: Vec<PathBuf>,
    /// The `paths` that hold configuration and secrets: a restore only puts them in place with
    /// `--with-config`.
    pub configuration: Vec<PathBuf>,
}

impl Files {
    /// The paths as configured, and the real paths of symlinked ones.
    pub fn places(&self) -> impl Iterator<Item = &PathBuf> {
        self.paths.iter().chain(&self.behind_links)
    }

    /// Whether the method of any path may take a snapshot of its volume.
    fn may_be_on_volumes(&self, host: &Host) -> bool {
        let Some(mounts) = host.mounts() else { return true };
        self.paths.iter().any(|path| match self.method(path) {
            Method::Auto => mounts::of(&mounts, path).is_none_or(mounts::Mount::is_volume),
            Method::Reflink | Method::None => false,
            Method::Btrfs | Method::Lvm | Method::Zfs => true,
        })
    }

    /// How `path` is captured.
    pub fn method(&self, path: &Path) -> Method {
        self.methods.get(path).copied().unwrap_or(self.snapshot)
    }
}

/// `[files] snapshot`: how a path is captured in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The fastest method that the path's file system supports.
    Auto,
    /// A snapshot of the btrfs subvolume.
    Btrfs,
    /// A snapshot of the logical volume.
    Lvm,
    /// A snapshot of the ZFS dataset.
    Zfs,
    /// Files that changed since the first pass are cloned.
    Reflink,
    /// Files that changed since the first pass are copied.
    None,
}

impl Method {
    /// The configuration's word for each method.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("btrfs", Self::Btrfs),
        ("lvm", Self::Lvm),
        ("zfs", Self::Zfs),
        ("reflink", Self::Reflink),
        ("none", Self::None),
    ];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            Self::WORDS.iter().find(|(_, method)| method == self).map_or("", |(word, _)| word),
        )
    }
}

/// `[repository]`
#[derive(Debug, Clone)]
pub struct Repository {
    /// The program that reads and writes the repository.
    pub engine: EngineName,
    /// Absolute path; with [`EngineName::Restic`] also any other repository that restic accepts.
    pub location: String,
    /// The password of the repository's key.
    pub password: SecretSource,
    /// `EnvironmentFile=` for restic's cloud credentials.
    pub environment_file: Option<PathBuf>,
}

impl Repository {
    /// The repository's directory; `None` for a remote repository.
    pub fn directory(&self) -> Option<&Path> {
        // restic also accepts `local:` before a directory.
        Some(Path::new(self.location.strip_prefix("local:").unwrap_or(&self.location)))
            .filter(|path| path.is_absolute())
    }
}

/// `[repository] engine`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineName {
    /// This program reads and writes the restic format itself.
    Builtin,
    /// The `restic` program.
    Restic,
}

/// `[retention]`: each field is one keep rule. Unset rules keep nothing; with no rule at all,
/// nothing is ever removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Keep the newest N runs.
    pub keep_last: Option<u32>,
    /// Keep the newest run of each of the last N days that have one.
    pub keep_daily: Option<u32>,
    /// Keep the newest run of each of the last N weeks (ISO 8601) that have one.
    pub keep_weekly: Option<u32>,
    /// Keep the newest run of each of the last N months that have one.
    pub keep_monthly: Option<u32>,
    /// Keep the newest run of each of the last N years that have one.
    pub keep_yearly: Option<u32>,
    /// Keep runs that are at most this much older than the newest.
    pub keep_within: Option<Timespan>,
    /// `keep-min`: nothing is removed if fewer complete runs would remain.
    pub keep_min: Option<u32>,
}

/// The default of `keep-min`.
const KEEP_MIN: u32 = 3;

impl Retention {
    /// Whether there is any keep rule, so that runs may be removed.
    pub fn is_set(&self) -> bool {
        Self { keep_min: None, ..self.clone() } != Self::default()
    }

    /// The number of complete runs that must remain: `keep-min`, by default no more than the keep
    /// rules themselves keep.
    pub fn effective_keep_min(&self) -> u32 {
        let counts = [
            self.keep_last,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let kept_by_rules = counts
            .into_iter()
            .flatten()
            .chain(self.keep_within.map(|_| KEEP_MIN))
            .max()
            .unwrap_or(KEEP_MIN);
        self.keep_min.unwrap_or(kept_by_rules.min(KEEP_MIN))
    }
}

/// `[verify]`
#[derive(Debug, Clone)]
pub struct Verify {
    /// `OnCalendar=`, checked against systemd.time(7). `None`: no timer.
    pub calendar: Option<String>,
    /// `RandomizedDelaySec=`.
    pub randomized_delay: Timespan,
    /// Whether to restore the dumps into temporary servers.
    pub drill: bool,
    /// Whether to read every byte of the repository.
    pub read_data: bool,
    /// Whether to check every Git repository instead of a sample.
    pub all_repositories: bool,
}

/// An enabled `[[step]]`.
#[derive(Debug, Clone)]
pub struct Step {
    /// Lower case letters, digits and `-`; unique; becomes part of the unit's name.
    pub name: String,
    /// `Description=`, one line.
    pub description: Option<String>,
    /// When it runs.
    pub stage: Stage,
    /// argv with an absolute program.
    pub command: Vec<String>,
    /// `User=`; root by default.
    pub user: Option<String>,
    /// `TimeoutStartSec=`.
    pub timeout: Timespan,
}

/// The stages of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before GitLab is stopped.
    Prepare,
    /// While GitLab is down.
    Window,
    /// When GitLab is up again and the run is not complete yet.
    Store,
    /// After the run is complete.
    Finish,
}
