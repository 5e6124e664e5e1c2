//! The unit files of a host, read from disk without systemd.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::host::Host;
use crate::host::own;
use crate::systemd::STARTED_ALONG;
use crate::values::UnitName;

/// The directories of unit files, by precedence: an earlier file hides later ones of its name,
/// systemd.unit(5).
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
    /// The file of each unit; `None` for a masked one, which hides those in later directories.
    files: BTreeMap<String, Option<PathBuf>>,
}

impl Units {
    /// Lists the unit files. Fails if an existing directory cannot be read: defaults must not
    /// depend on the privileges of this process.
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
                files.entry(name).or_insert_with(|| follow_link(host, path));
            }
        }
        Ok(Self { files })
    }

    /// Whether there is no unit file at all, as when NixOS builds a system's configuration without
    /// its host.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// `name`, if there is a unit file of that name.
    pub(super) fn find(&self, name: &str) -> Option<UnitName> {
        self.files.get(name)?.as_ref()?;
        UnitName::new(name).ok()
    }

    /// The last value of `key` in the unit file `name`.
    pub(super) fn value(&self, name: &str, key: &str) -> Option<String> {
        self.values(name, &[key]).pop()
    }

    /// The files that services are started with: the absolute paths that end in `suffix`, in the
    /// commands of all services whose names contain `part`.
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

    /// The sockets, timers and paths that can start one of `units`: each of the same stem, and each
    /// named `gitlab*` that triggers one of `units` or a unit that pulls one in.
    pub(super) fn triggers_of(&self, units: &[UnitName]) -> Vec<UnitName> {
        let unmasked = self.files.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| name);
        unmasked
            .filter(|name| self.is_trigger_of(name, units))
            .filter_map(|name| UnitName::new(name.as_str()).ok())
            .collect()
    }

    fn is_trigger_of(&self, name: &str, units: &[UnitName]) -> bool {
        let Some((stem, "socket" | "timer" | "path")) = name.rsplit_once('.') else {
            return false;
        };
        let has_same_stem = |unit: &UnitName| {
            unit.as_str().rsplit_once('.').is_some_and(|(other, _)| other == stem)
        };
        if units.iter().any(has_same_stem) {
            return true;
        }
        // Without Service= or Unit=, systemd starts the service of the same stem.
        let mut triggered = self.listed_names(name, &["Service", "Unit"]);
        triggered.push(format!("{stem}.service"));
        stem.starts_with("gitlab")
            && triggered.iter().any(|triggered| self.starts_one_of(triggered, units))
    }

    /// Whether the unit `name` is one of `units`, or pulls one of them in when it is started.
    fn starts_one_of(&self, name: &str, units: &[UnitName]) -> bool {
        let is_one = |name: &str| units.iter().any(|unit| unit.as_str() == name);
        is_one(name) || self.listed_names(name, &STARTED_ALONG).iter().any(|name| is_one(name))
    }

    /// The names in the values of `keys` in the unit file `name`.
    fn listed_names(&self, name: &str, keys: &[&str]) -> Vec<String> {
        self.values(name, keys)
            .iter()
            .flat_map(|value| value.split_whitespace())
            .map(str::to_owned)
            .collect()
    }

    /// The values of `keys` in the unit file `name`, in the order of the file; empty if there is no
    /// such file.
    fn values(&self, name: &str, keys: &[&str]) -> Vec<String> {
        let Some(Some(file)) = self.files.get(name) else { return Vec::new() };
        let text = own::read_text(file).unwrap_or_default();
        let assignments = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| keys.contains(&key.trim()));
        assignments.map(|(_, value)| value.trim().to_owned()).collect()
    }
}

/// The file behind the directory entry `path`, below the host's root directory; `None` for a mask.
fn follow_link(host: &Host, path: PathBuf) -> Option<PathBuf> {
    match own::link(&path) {
        Ok(target) if target == Path::new("/dev/null") => None,
        Ok(target) if target.is_absolute() => Some(host.path(target)),
        _ => Some(path),
    }
}
