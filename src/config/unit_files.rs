//! The unit files of a host, read without asking systemd.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::host::Host;
use crate::host::own;
use crate::systemd::STARTED_ALONG;
use crate::values::UnitName;

/// Where unit files are, in the order in which the first one counts, systemd.unit(5).
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The unit files of a host, without the masked ones.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// `None` for a masked one: it hides those in later directories.
    files: BTreeMap<String, Option<PathBuf>>,
}

impl Units {
    /// Lists them. Fails if a directory is there but cannot be read: defaults must not depend on
    /// who asks.
    pub(super) fn of(host: &Host) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for directory in UNIT_DIRECTORIES {
            let entries = match own::entries(host.path(directory)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{directory}: {error}")));
                }
            };
            for entry in entries {
                let path = entry?.path();
                let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned)
                else {
                    continue;
                };
                files.entry(name).or_insert_with(|| followed(host, path));
            }
        }
        Ok(Self { files })
    }

    /// Whether there is no unit at all: no host is looked at, as where NixOS builds a system.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// `name`, if there is a unit file of that name.
    pub(super) fn find(&self, name: &str) -> Option<UnitName> {
        self.files.get(name)?.as_ref()?;
        UnitName::new(name).ok()
    }

    /// What `key` was last set to in the unit file `name`.
    pub(super) fn value(&self, name: &str, key: &str) -> Option<String> {
        self.assigned(name, &[key]).pop()
    }

    /// The words that end with `suffix` in the commands of the services whose names have `part` in
    /// them: the files that they are started with.
    pub(super) fn arguments(&self, part: &str, suffix: &str) -> Vec<PathBuf> {
        let services =
            self.files.keys().filter(|name| name.contains(part) && name.ends_with(".service"));
        let commands = services.filter_map(|name| self.value(name, "ExecStart"));
        let words = commands
            .flat_map(|command| command.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        words
            .filter(|word| word.ends_with(suffix))
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .collect()
    }

    /// The sockets, timers and paths that can start one of `units`: those of the same stem, and
    /// those of GitLab's that start one, or what asks for one.
    pub(super) fn triggers_of(&self, units: &[UnitName]) -> Vec<UnitName> {
        let is_one = |name: &String| units.iter().any(|unit| unit.as_str() == name);
        let asks =
            |name: &String| is_one(name) || self.words(name, &STARTED_ALONG).iter().any(is_one);
        let triggers = |name: &str| {
            let Some((stem, "socket" | "timer" | "path")) = name.rsplit_once('.') else {
                return false;
            };
            let by_stem = units
                .iter()
                .any(|unit| unit.as_str().rsplit_once('.').is_some_and(|(other, _)| other == stem));
            let named = || {
                [self.words(name, &["Service", "Unit"]), vec![format!("{stem}.service")]].concat()
            };
            by_stem || stem.starts_with("gitlab") && named().iter().any(asks)
        };
        let there = self.files.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| name);
        there
            .filter(|name| triggers(name))
            .filter_map(|name| UnitName::new(name.as_str()).ok())
            .collect()
    }

    /// The words of `keys` in the unit file `name`.
    fn words(&self, name: &str, keys: &[&str]) -> Vec<String> {
        self.assigned(name, keys)
            .iter()
            .flat_map(|value| value.split_whitespace())
            .map(str::to_owned)
            .collect()
    }

    /// What `keys` are set to in the unit file `name`, in its order; nothing if there is no such
    /// file.
    fn assigned(&self, name: &str, keys: &[&str]) -> Vec<String> {
        let Some(Some(file)) = self.files.get(name) else { return Vec::new() };
        let text = own::read_text(file).unwrap_or_default();
        let assigned = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| keys.contains(&key.trim()));
        assigned.map(|(_, value)| value.trim().to_owned()).collect()
    }
}

/// What a unit file's entry leads to within the host's tree; nothing for a mask.
fn followed(host: &Host, path: PathBuf) -> Option<PathBuf> {
    match own::link(&path) {
        Ok(target) if target == Path::new("/dev/null") => None,
        Ok(target) if target.is_absolute() => Some(host.path(target)),
        _ => Some(path),
    }
}
