//! Layouts: each way to install GitLab, with the names of its units, its Redis and its files. A new
//! layout is a new file and an entry in [`LAYOUTS`].

mod custom;
mod nixos;
mod omnibus;
mod source;

use std::path::PathBuf;

use super::found::{Defaults, HostFacts};
use super::host::Host;
use super::unit_files::Units;

pub use omnibus::{OMNIBUS, SUPERVISOR};

/// All layouts. `auto` takes the first that recognises the host.
pub(super) const LAYOUTS: [&dyn Layout; 4] =
    [&omnibus::Omnibus, &nixos::Nixos, &source::Source, &custom::Custom];

/// Whether a layout recognises the host.
pub fn is_recognised(host: &Host) -> bool {
    Units::of(host).is_ok_and(|units| LAYOUTS.iter().any(|layout| layout.recognises(&units)))
}

/// The defaults of `layout` on `host`: those that root found before, or else those that this
/// process finds.
pub(super) fn found(layout: &dyn Layout, host: &Host, units: &Units) -> HostFacts {
    let found = host.found().filter(|found| found.layout == layout.name()).cloned();
    found.unwrap_or_else(|| HostFacts {
        layout: layout.name().to_owned(),
        defaults: layout.defaults(host, units),
    })
}

/// One way to install GitLab. Decides by existing files, never by the name of a distribution.
pub(super) trait Layout {
    /// The layout's name in `gitlab.layout`.
    fn name(&self) -> &'static str;
    /// Whether the host has this layout, so that `auto` may choose it.
    fn recognises(&self, units: &Units) -> bool;
    /// The defaults of the configuration on `host`.
    fn defaults(&self, host: &Host, units: &Units) -> Defaults;
}

/// `paths` without duplicates and without paths inside another, which are saved with it.
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
