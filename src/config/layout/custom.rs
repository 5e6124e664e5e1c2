//! A GitLab that no layout knows: the configuration says everything.

use super::Layout;
use crate::config::found::Defaults;
use crate::config::host::Host;
use crate::config::unit_files::Units;

pub(super) struct Custom;

impl Layout for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    /// Never: what is to be stopped is not guessed.
    fn recognises(&self, _units: &Units) -> bool {
        false
    }

    fn defaults(&self, _host: &Host, _units: &Units) -> Defaults {
        Defaults::default()
    }
}
