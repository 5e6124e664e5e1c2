//! A GitLab that no other layout describes: it has no defaults.

use super::Layout;
use crate::config::found::Defaults;
use crate::config::host::Host;
use crate::config::unit_files::Units;

pub(super) struct Custom;

impl Layout for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    /// Never: the units to stop must not be guessed.
    fn recognises(&self, _units: &Units) -> bool {
        false
    }

    fn defaults(&self, _host: &Host, _units: &Units) -> Defaults {
        Defaults::default()
    }
}
