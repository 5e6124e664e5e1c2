//! Layouts: what an installation of GitLab looks like on a host, and so what a configuration may leave out. One file for each.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::RedisAddress;
use super::host::Host;

/// Where systemd finds unit files, systemd.unit(5).
const UNIT_PATH: [&str; 5] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What a layout supplies.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub name: &'static str,
    pub writers: Vec<String>,
    pub redis: Option<RedisAddress>,
    pub paths: Vec<PathBuf>,
}

/// The layout that the host's unit files show; none if they show none.
pub(super) fn detect(host: &Host) -> Option<Defaults> {
    let units = unit_files(host);
    source::matches(&units).then(|| source::defaults(host, &units))
}

/// The source layout, asked for by name.
pub(super) fn source(host: &Host) -> Defaults {
    source::defaults(host, &unit_files(host))
}

/// A layout that supplies nothing.
pub(super) fn custom() -> Defaults {
    Defaults { name: "custom", ..Defaults::default() }
}

fn unit_files(host: &Host) -> BTreeSet<String> {
    UNIT_PATH
        .iter()
        .filter_map(|directory| fs::read_dir(host.path(directory)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>())
        .collect()
}
