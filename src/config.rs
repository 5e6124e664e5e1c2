//! The configuration: TOML → raw → validated. The only way to a [`Config`] is through validation.
//!
//! Pure but for the host's facts, which come in as a [`host::Host`]; knows nothing of units, the
//! bus or processes.

pub mod declared;
mod error;
mod found;
pub mod host;
mod layout;
mod raw;
mod unit_files;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{beneath, mounts, own};
use crate::monitoring::Monitoring;
pub use crate::schema::Finding;
use crate::values::{SecretSource, Timespan, UnitName};

pub use error::ConfigError;
pub use found::Found;
use host::Host;
pub use layout::{OMNIBUS, SUPERVISOR, is_recognised};

/// Bytes of a configuration: half of what systemd takes as a unit's credentials, systemd.exec(5)
/// `LoadCredential=`.
const SIZE_MAX: usize = 512 * 1024;

/// A validated configuration: every default filled in, by the layout or the host where the file is
/// silent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from, absolute: what the units pass on to the helpers.
    pub source: PathBuf,
    /// What to stop and how to tell that it is back.
    pub gitlab: Gitlab,
    /// When to run.
    pub schedule: Schedule,
    /// Absent with `enable = false`.
    pub postgresql: Option<Postgresql>,
    /// Empty where there is none to save.
    pub redis: Vec<Redis>,
    /// What the file backup takes.
    pub files: Files,
    /// Where everything is kept.
    pub repository: Repository,
    /// What is kept, for how long.
    pub retention: Retention,
    /// How the newest run is verified, by the clock or when its unit is started.
    pub verify: Verify,
    /// Who is told of a run.
    pub monitoring: Monitoring,
    /// The enabled `[[step]]`s, in the order of the file.
    pub steps: Vec<Step>,
    /// What was found on the host, for whoever cannot see it.
    pub found: Found,
}

impl Config {
    /// Reads and judges the file at `path`, with what is silent there filled in from `host`.
    ///
    /// # Errors
    /// With every finding, if the file cannot be read or anything in it is refused.
    pub fn load(path: &Path, host: &Host) -> Result<Self, ConfigError> {
        Self::parse(&Self::read(path)?, path, host)
    }

    fn read(path: &Path) -> Result<String, ConfigError> {
        let text = own::read_text(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        // Whoever can change it has root run what he likes.
        if rustix::process::geteuid().is_root() {
            let own = beneath::trusted(path)
                .map_err(|error| ConfigError::general(path, format!("{error:#}"), None));
            own?;
        }
        Ok(text)
    }

    /// The same, for who only looks into the repository: what is silent about GitLab may stay so,
    /// on a host where there is none.
    ///
    /// # Errors
    /// With every finding, if the file cannot be read or anything in it is refused.
    pub fn load_for_repository(path: &Path, host: &Host) -> Result<Self, ConfigError> {
        let text = Self::read(path)?;
        Self::judge(&text, path, host, |finding| {
            let section = finding.key.split(['.', '[']).next().unwrap_or_default();
            finding.line.is_none() && ["gitlab", "files", "postgresql", "redis"].contains(&section)
        })
    }

    /// Judges `text`, which was read from `source`.
    ///
    /// # Errors
    /// With every finding, if anything in it is refused.
    pub fn parse(text: &str, source: &Path, host: &Host) -> Result<Self, ConfigError> {
        Self::judge(text, source, host, |_| false)
    }

    fn judge(
        text: &str,
        source: &Path,
        host: &Host,
        overlooked: impl Fn(&Finding) -> bool,
    ) -> Result<Self, ConfigError> {
        let absolute =
            std::path::absolute(source).map_err(|error| ConfigError::unreadable(source, &error))?;
        // Its path stands in the units, and its text reaches those helpers that are not root as a
        // credential.
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
        let (mut config, judged) = validate::config(raw, text, &absolute, host);
        config.files.behind_links = host.behind_links(&config.files.paths);
        config.files.volumes =
            config.repository.engine == EngineName::Builtin && config.files.may_be_on_volumes(host);
        // What was left out for its type must not be reported again as missing.
        let reported: Vec<_> = findings.iter().map(|finding| finding.key.clone()).collect();
        findings.extend(judged.into_iter().filter(|finding| {
            !reported.iter().any(|key| within(key, &finding.key) || within(&finding.key, key))
        }));
        findings.retain(|finding| !overlooked(finding));
        if findings.is_empty() { Ok(config) } else { Err(ConfigError::new(source, findings)) }
    }
}

/// Whether `key` is `outer` or lies inside it.
fn within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `[gitlab]`
#[derive(Debug, Clone)]
pub struct Gitlab {
    /// The layout that filled in the defaults; never `auto`.
    pub layout: String,
    /// What is stopped, in the order given, no name twice, at least one.
    pub writers: Vec<UnitName>,
    /// Those of `writers` that are stopped one by one: what systemd would stop along with them must
    /// stay up.
    pub stopped_alone: Vec<UnitName>,
    /// What is no writer although the layout has it for one: it serves a page meanwhile.
    pub stays_up: Vec<UnitName>,
    /// What systemd does not manage itself, each with a unit of ours in its place; those that write
    /// are among `writers`.
    pub proxies: Vec<Proxy>,
    /// How the writers are kept from writing.
    pub quiesce: Quiesce,
    /// What answers 2xx when GitLab is usable.
    pub readiness: Option<ReadinessUrl>,
    /// The longest time that GitLab may be down.
    pub max_downtime: Timespan,
    /// How long resume lets a unit that still stops go on before it kills it (only after a fault:
    /// in a run that goes well every stop is complete before the window opens).
    pub stop_grace: Timespan,
    /// `settle`: how long a unit that is being started or stopped is waited for, before GitLab is
    /// stopped.
    pub settle: Timespan,
}

impl Gitlab {
    /// What `Conflicts=` stops: the writers without those that are stopped one by one.
    pub fn conflicting(&self) -> impl Iterator<Item = &UnitName> {
        self.writers.iter().filter(|writer| !self.stopped_alone.contains(writer))
    }

    /// Whether there is something behind `unit` that systemd does not manage.
    pub fn is_proxy(&self, unit: &UnitName) -> bool {
        self.proxies.iter().any(|proxy| proxy.unit() == *unit)
    }

    /// The proxies that are stopped for a backup, or can be: a server that a restore starts anew is
    /// not.
    pub fn writing_proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().filter(|proxy| self.writers.contains(&proxy.unit()))
    }
}

/// `[[gitlab.proxy]]`: a service that something else than systemd runs: runit, a container,
/// supervisord, an init script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Lower case letters, digits, `-` and `_`; unique; becomes part of the unit's name.
    pub name: String,
    /// argv, the program absolute; good also where it runs already.
    pub start: Vec<String>,
    /// argv; good also where it is down already.
    pub stop: Vec<String>,
    /// argv; what it says is believed, and not what the others say.
    pub status: Vec<String>,
    /// Seconds until a start or a stop must be done.
    pub timeout: u64,
    /// Other proxies that are started before it and stopped after it.
    pub after: Vec<String>,
}

impl Proxy {
    /// What the names of their units begin with.
    pub const PREFIX: &'static str = "gitlab-backup-proxy-";
    /// Seconds for a start or a stop, unless it says otherwise. GitLab's own tools wait half a
    /// minute; Gitaly gives what it is at a minute.
    pub(crate) const TIMEOUT: u64 = 90;

    /// The unit in its place.
    pub fn unit(&self) -> UnitName {
        UnitName::of_ours(format!("{}{}.service", Self::PREFIX, self.name))
    }
}

/// `[gitlab] quiesce`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiesce {
    /// They are stopped, and started again: what they were at is finished or undone by themselves.
    Stop,
    /// Their control groups are frozen: as if the host had lost its power in that moment.
    Freeze,
}

/// Where readiness is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadinessUrl {
    /// `http://` or `https://`.
    Http(String),
    /// `unix:/path/to/socket` or `unix:/path/to/socket:/url/path`.
    Unix {
        /// The socket.
        socket: PathBuf,
        /// The path to ask for, `/-/readiness` if none is given.
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
    /// The role.
    pub user: String,
    /// The OS user that the units run as: the role for sockets, `gitlab-backup` for hosts, unless
    /// `os-user` says otherwise.
    pub os_user: String,
    /// The role that restores, and makes the role that backs up: `user` unless `restore-user` says
    /// otherwise.
    pub restore_user: String,
    /// The OS user that connects as it: `os-user` unless `restore-os-user` says otherwise.
    pub restore_os_user: String,
    /// Left out: all but the templates.
    pub databases: Option<Vec<String>>,
    /// `pg_dump --jobs`.
    pub jobs: u16,
    /// How long whoever changes a table waits for its dump, before the run gives way.
    pub ddl_wait: Timespan,
    /// `password-file` or `password-credential`.
    pub password: Option<SecretSource>,
    /// Where pg_dump, pg_dumpall, pg_restore and vacuumdb are, if not on `PATH`.
    pub bin_dir: Option<PathBuf>,
}

impl Postgresql {
    /// Whether it is reached by a socket of this host.
    pub fn by_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The same for what a restore asks of it.
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
    /// Names the dump and every message about it; unique; letters, digits, `-` and `_`.
    pub name: String,
    /// Where it listens.
    pub address: RedisAddress,
    /// ACL user, from the URL.
    pub username: Option<String>,
    /// `password-file` or `password-credential`.
    pub password: Option<SecretSource>,
    /// How long a save may take.
    pub timeout: Timespan,
    /// The unit that runs it, for a restore; left out, the running server tells.
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
        /// Port, 6379 if none is given.
        port: u16,
        /// `rediss://`.
        tls: bool,
    },
}

/// `[files]`
#[derive(Debug, Clone)]
pub struct Files {
    /// Absolute, normalised, none inside another; may be empty with `command`.
    pub paths: Vec<PathBuf>,
    /// Globs as gitignore(5) has them, each checked.
    pub exclude: Vec<String>,
    /// Directories, and addresses of storages, that GitLab's configuration names and that nobody
    /// misses in the backup.
    pub omit: Vec<String>,
    /// An own file backup instead of the repository; argv, the program absolute.
    pub command: Option<Vec<String>>,
    /// First pass with GitLab up, so that the window only takes what changed since.
    pub presync: bool,
    /// How a path is captured, unless it says so itself.
    pub snapshot: Method,
    /// The paths that say so themselves.
    pub methods: BTreeMap<PathBuf, Method>,
    /// What a snapshot of a classic logical volume may hold, as lvcreate(8) takes it with `-l` or
    /// `-L`.
    pub lvm_snapshot_size: String,
    /// A path may be on a file system that can make snapshots: told by the host's mounts, and taken
    /// for true where they cannot be seen.
    pub volumes: bool,
    /// Where those of `paths` are that are reached through a link: the units of a restore write
    /// there.
    pub behind_links: Vec<PathBuf>,
    /// Those of `paths` that hold configuration and secrets: a restore puts them in place only when
    /// asked to.
    pub configuration: Vec<PathBuf>,
}

impl Files {
    /// `paths`, by their names and by where they really are.
    pub fn places(&self) -> impl Iterator<Item = &PathBuf> {
        self.paths.iter().chain(&self.behind_links)
    }

    /// Whether a snapshot may be made of the volume of a path.
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
    /// As the path's file system allows, the fastest first.
    Auto,
    /// A snapshot of its btrfs subvolume.
    Btrfs,
    /// A snapshot of its logical volume.
    Lvm,
    /// A snapshot of its ZFS dataset.
    Zfs,
    /// What changed since the first pass is cloned.
    Reflink,
    /// What changed since the first pass is copied.
    None,
}

impl Method {
    /// Every method, by the word for it.
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
    /// What writes it.
    pub engine: EngineName,
    /// Absolute path; with [`EngineName::Restic`] whatever restic takes.
    pub location: String,
    /// The key's password.
    pub password: SecretSource,
    /// `EnvironmentFile=` for restic's cloud credentials.
    pub environment_file: Option<PathBuf>,
}

impl Repository {
    /// Its directory, if it is one of this host.
    pub fn directory(&self) -> Option<&Path> {
        // With `local:` restic names a directory too.
        Some(Path::new(self.location.strip_prefix("local:").unwrap_or(&self.location)))
            .filter(|path| path.is_absolute())
    }
}

/// `[repository] engine`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineName {
    /// Our own process writes the restic format.
    Builtin,
    /// The `restic` program does.
    Restic,
}

/// `[retention]`: what is kept for which reason; `None` keeps nothing for that reason, all of them
/// `None` keeps everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest, however old.
    pub keep_last: Option<u32>,
    /// The newest of each of so many days.
    pub keep_daily: Option<u32>,
    /// The newest of each of so many weeks, ISO 8601.
    pub keep_weekly: Option<u32>,
    /// The newest of each of so many months.
    pub keep_monthly: Option<u32>,
    /// The newest of each of so many years.
    pub keep_yearly: Option<u32>,
    /// Everything that is not older than this before the newest.
    pub keep_within: Option<Timespan>,
    /// `keep-min`: nothing is removed if fewer complete runs were left.
    pub keep_min: Option<u32>,
}

/// `keep-min`, if nobody says otherwise.
const KEEP_MIN: u32 = 3;

impl Retention {
    /// Whether anything is to be removed at all.
    pub fn is_set(&self) -> bool {
        Self { keep_min: None, ..self.clone() } != Self::default()
    }

    /// How many complete runs are left at least: no more than the policy itself would keep, unless
    /// somebody says so.
    pub fn least(&self) -> u32 {
        let counts = [
            self.keep_last,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let kept = counts
            .into_iter()
            .flatten()
            .chain(self.keep_within.map(|_| KEEP_MIN))
            .max()
            .unwrap_or(KEEP_MIN);
        self.keep_min.unwrap_or(kept.min(KEEP_MIN))
    }
}

/// `[verify]`
#[derive(Debug, Clone)]
pub struct Verify {
    /// `OnCalendar=`, checked against systemd.time(7); there is no timer without.
    pub calendar: Option<String>,
    /// `RandomizedDelaySec=`.
    pub randomized_delay: Timespan,
    /// Restore into throw-away servers.
    pub drill: bool,
    /// Read every byte of the repository.
    pub read_data: bool,
    /// Check every Git repository, and not a sample.
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
    /// argv, the program absolute.
    pub command: Vec<String>,
    /// `User=`; root if left out.
    pub user: Option<String>,
    /// `TimeoutStartSec=`.
    pub timeout: Timespan,
}

/// The stages of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before anything is stopped.
    Prepare,
    /// GitLab is down.
    Window,
    /// GitLab is up again; the run is not complete yet.
    Store,
    /// The run is complete.
    Finish,
}
