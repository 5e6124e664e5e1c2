//! Layouts: how GitLab was installed, and so what its units, its Redis and its files are called.
//! Adding one is a file and a line here.

mod custom;
mod nixos;
mod omnibus;
mod source;

use std::path::PathBuf;

use super::found::{Defaults, Found};
use super::host::Host;
use super::unit_files::Units;

pub use omnibus::{OMNIBUS, SUPERVISOR};

/// All of them. `auto` takes the first that recognises the host.
pub(super) const LAYOUTS: [&dyn Layout; 4] =
    [&omnibus::Omnibus, &nixos::Nixos, &source::Source, &custom::Custom];

/// Whether one of them is on the host.
pub fn is_recognised(host: &Host) -> bool {
    Units::of(host).is_ok_and(|units| LAYOUTS.iter().any(|layout| layout.recognises(&units)))
}

/// What is on `host` if this is its layout: as it was found, or as it looks from here.
pub(super) fn found(layout: &dyn Layout, host: &Host, units: &Units) -> Found {
    let found = host.found().filter(|found| found.layout == layout.name()).cloned();
    found.unwrap_or_else(|| Found {
        layout: layout.name().to_owned(),
        defaults: layout.defaults(host, units),
    })
}

/// One way to install GitLab. Goes by the files that are there, never by the name of a
/// distribution.
pub(super) trait Layout {
    /// What `gitlab.layout` calls it.
    fn name(&self) -> &'static str;
    /// Whether `auto` means this one.
    fn recognises(&self, units: &Units) -> bool;
    /// What the configuration need not say.
    fn defaults(&self, host: &Host, units: &Units) -> Defaults;
}

/// `paths` without those that are inside another, which are taken with it.
fn outermost<'a>(paths: impl Iterator<Item = &'a PathBuf> + Clone) -> Vec<PathBuf> {
    let mut outermost: Vec<PathBuf> = Vec::new();
    for path in paths.clone() {
        if !paths.clone().any(|other| path != other && path.starts_with(other))
            && !outermost.contains(path)
        {
            outermost.push(path.clone());
        }
    }
    outermost
}
