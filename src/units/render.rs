//! From the plan to the files. One template per kind of unit; a template's fields are [`Text`]s, so
//! nothing reaches a file unescaped.

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
    /// Its bytes.
    pub content: String,
}

/// The first line of every file that we write; `install` removes only files that start with it.
pub const HEADER: &str = "# Made by gitlab-backup generate: edits are lost, drop-ins are kept.";

/// Renders every unit of `config`. `program` is this program's absolute path on the host.
pub fn generate(config: &Config, program: &Path) -> Result<Vec<UnitFile>> {
    let renderer = Renderer { config, plan: Plan::new(config), program };
    renderer.plan.units().iter().map(|unit| renderer.file(unit)).collect()
}

/// How a unit may touch the world, beyond what every unit is denied (`templates/sandbox.inc`).
#[derive(Default)]
pub(super) struct Sandbox {
    pub capabilities: &'static str,
    pub network: bool,
    /// Talks to systemd.
    pub bus: bool,
    /// Outside programs (restic, pg_dump) may do what ours need not.
    pub foreign: bool,
    /// Looks for the process behind an address.
    pub processes: bool,
    /// What is writable may be below /home.
    pub home: bool,
    /// Files are laid out as they were, with set-user-ID and set-group-ID bits.
    pub set_id: bool,
    /// Thaws what systemd does not.
    pub thaws: bool,
    /// Runs programs that are confined by landlock(7) and seccomp(2).
    pub confines: bool,
    /// Mounts file systems for others to see.
    pub mounts: bool,
    /// Sees the host's /tmp, because something is there.
    pub tmp: bool,
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

    /// With what every unit here must see.
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

    /// The command line of one of our own helpers.
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

    /// The directories at the top of the host in which the files lie: a rename stays within one
    /// mount, so within one writable path.
    pub fn tops(&self) -> Vec<PathBuf> {
        let top = |path: &PathBuf| path.components().take(2).collect::<PathBuf>();
        let mut tops: Vec<PathBuf> = self.config.files.places().map(top).collect();
        tops.sort();
        tops.dedup();
        tops
    }

    /// `ReadWritePaths=` of these, none inside another. With `-`: one that is missing is for the
    /// unit to say, in words.
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

    /// Whether PostgreSQL or a Redis is reached by an address, and not by a socket.
    pub fn servers_by_network(&self) -> bool {
        self.postgresql_by_network() || self.redis_by_network()
    }

    pub fn postgresql_by_network(&self) -> bool {
        self.config.postgresql.as_ref().is_some_and(|postgresql| !postgresql.host.starts_with('/'))
    }

    pub fn redis_by_network(&self) -> bool {
        self.config.redis.iter().any(|redis| matches!(redis.address, RedisAddress::Tcp { .. }))
    }

    /// Begins a pause, in which the writers are `stopped` or not.
    pub fn pause(&self, stopped: bool) -> Text {
        let alone = self.config.gitlab.stopped_alone.iter().filter(|_| stopped);
        let words: Vec<&str> =
            ["pause"].into_iter().chain(alone.flat_map(|unit| ["--stop", unit.as_str()])).collect();
        self.helper(&words)
    }

    /// How long a window may take to open: no time for a look at what is down, and any for stops
    /// that it waits for itself; those that systemd waits for have no limit either, but the
    /// deadline.
    pub fn window_timeout(&self, stopped: bool) -> Text {
        let waits = stopped && !self.config.gitlab.stopped_alone.is_empty();
        Text::plain(if waits { "infinity" } else { "60s" })
    }
}
