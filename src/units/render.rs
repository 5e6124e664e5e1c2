//! Renders the planned units. Each kind of unit has a template, whose fields are [`Text`]s, so that
//! every value is escaped.

pub mod credential;
pub(super) mod kinds;
pub(super) mod step;

use std::path::{Path, PathBuf};

use crate::config::{Config, ReadinessUrl, RedisAddress};
use crate::paths;
use anyhow::{Context, Result};

use super::text::Text;
use super::{Plan, Unit};

/// A unit file, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// The file's name.
    pub name: String,
    /// The file's text.
    pub content: String,
}

/// The first line of every generated file. `install` replaces and removes only files that start
/// with it.
pub const HEADER: &str = "# Made by gitlab-backup generate: edits are lost, drop-ins are kept.";

/// Renders every unit of `config`. `program` is this program's absolute path on the host.
pub fn generate(config: &Config, program: &Path) -> Result<Vec<UnitFile>> {
    let renderer = Renderer { config, plan: Plan::new(config), program };
    renderer.plan.units().iter().map(|unit| renderer.file(unit)).collect()
}

/// The privileges of a unit, which `templates/sandbox.inc` otherwise denies.
#[derive(Default)]
pub(super) struct Sandbox {
    pub capabilities: &'static str,
    pub network: bool,
    /// Talks to systemd over D-Bus.
    pub bus: bool,
    /// Runs other programs (restic, pg_dump), which may need writable and executable memory.
    pub foreign: bool,
    /// Sees other users' processes, to find the server behind an address.
    pub processes: bool,
    /// Writable paths may be below /home.
    pub home: bool,
    /// Creates files with set-user-ID and set-group-ID bits.
    pub set_id: bool,
    /// Writes control groups, to thaw units that systemd does not thaw.
    pub thaws: bool,
    /// Confines programs with landlock(7) and seccomp(2), whose system calls older versions of
    /// systemd do not include in `@system-service`.
    pub confines: bool,
    /// Mounts file systems that other units see.
    pub mounts: bool,
    /// Sees the host's /tmp, because a configured path is there.
    pub tmp: bool,
    /// `ReadWritePaths=`
    pub writable: Option<Text>,
}

impl Sandbox {
    pub fn new(capabilities: &'static str) -> Self {
        Self { capabilities, bus: true, ..Self::default() }
    }
}

pub(super) struct Renderer<'a> {
    pub config: &'a Config,
    pub plan: Plan<'a>,
    program: &'a Path,
}

impl Renderer<'_> {
    fn file(&self, unit: &Unit) -> Result<UnitFile> {
        let content =
            (unit.row().text)(self, unit).with_context(|| format!("cannot render {unit}"))?;
        Ok(UnitFile {
            name: unit.to_string(),
            content: format!("{HEADER}\n\n{}\n", content.trim_end()),
        })
    }

    /// A sandbox with D-Bus; it includes the host's /tmp if a configured path is there.
    pub fn sandbox(&self, capabilities: &'static str) -> Sandbox {
        let config = self.config;
        let server = config.postgresql.iter().map(|postgresql| Path::new(&postgresql.host));
        let redis = config.redis.iter().filter_map(|redis| match &redis.address {
            RedisAddress::Unix(path) => Some(path.as_path()),
            RedisAddress::Tcp { .. } => None,
        });
        let readiness = config.gitlab.readiness.iter().filter_map(|readiness| match readiness {
            ReadinessUrl::Unix { socket, .. } => Some(socket.as_path()),
            ReadinessUrl::Http(_) => None,
        });
        let stored = config
            .repository
            .directory()
            .into_iter()
            .chain(config.files.paths.iter().map(PathBuf::as_path));
        let tmp = server
            .chain(redis)
            .chain(readiness)
            .chain(stored)
            .any(|path| paths::TMP.iter().any(|tmp| path.starts_with(tmp)));
        Sandbox { tmp, ..Sandbox::new(capabilities) }
    }

    /// The command line of a helper.
    pub fn helper(&self, words: &[&str]) -> Text {
        let program = self.program.to_string_lossy();
        let source = self.config.source.to_string_lossy();
        let argv: Vec<String> = [&*program, "--config", &*source, "helper"]
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect();
        Text::command(&argv)
    }

    /// The top-level directories that contain the files. They are made writable as a whole, because
    /// each writable path is a mount of its own, and a rename cannot cross mounts.
    pub fn top_directories(&self) -> Vec<PathBuf> {
        let top = |path: &PathBuf| path.components().take(2).collect::<PathBuf>();
        let mut tops: Vec<PathBuf> = self.config.files.places().map(top).collect();
        tops.sort();
        tops.dedup();
        tops
    }

    /// `ReadWritePaths=` with these paths, without those inside another. Missing paths are ignored
    /// (`-`), so that the helper can report them.
    pub fn writable(&self, paths: impl IntoIterator<Item = PathBuf>) -> Option<Text> {
        let mut paths: Vec<PathBuf> = paths.into_iter().collect();
        paths.sort();
        paths.dedup();
        let inside =
            |path: &PathBuf| paths.iter().any(|other| path != other && path.starts_with(other));
        let named: Vec<String> = paths
            .iter()
            .filter(|path| !inside(path))
            .map(|path| format!("-{}", path.display()))
            .collect();
        (!named.is_empty()).then(|| Text::paths(named.iter().map(Path::new)))
    }

    /// Whether PostgreSQL or a Redis is reached over the network.
    pub fn servers_by_network(&self) -> bool {
        self.postgresql_by_network() || self.redis_by_network()
    }

    pub fn postgresql_by_network(&self) -> bool {
        self.config.postgresql.as_ref().is_some_and(|postgresql| !postgresql.host.starts_with('/'))
    }

    pub fn redis_by_network(&self) -> bool {
        self.config.redis.iter().any(|redis| matches!(redis.address, RedisAddress::Tcp { .. }))
    }

    /// The command line that begins a pause. If the writers are `stopped` and not frozen, it also
    /// stops those that are stopped without their dependents.
    pub fn pause(&self, stopped: bool) -> Text {
        let alone = self.config.gitlab.stopped_alone.iter().filter(|_| stopped);
        let words: Vec<&str> =
            ["pause"].into_iter().chain(alone.flat_map(|unit| ["--stop", unit.as_str()])).collect();
        self.helper(&words)
    }

    /// The units that the window of a backup or of a restore stops: the gates, and the writers.
    pub fn stopped(&self, restore: bool) -> Text {
        let gates = self.plan.gates(restore).into_iter().map(|unit| unit.to_string());
        let writers = self.config.gitlab.conflicting().map(ToString::to_string);
        Text::names(gates.chain(writers))
    }

    /// `TimeoutStartSec=` of a window. Unlimited if the window itself waits for stops: like the
    /// stops that systemd waits for, only the deadline limits those.
    pub fn window_timeout(&self, stopped: bool) -> Text {
        let waits = stopped && !self.config.gitlab.stopped_alone.is_empty();
        Text::plain(if waits { "infinity" } else { "60s" })
    }
}
