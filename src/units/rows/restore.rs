//! The units of a restore.

pub mod entry;
pub mod guard;
pub mod lay_out;
pub mod replace;
pub mod window;

use std::path::PathBuf;

use crate::paths;
use crate::units::render::step::StepService;
use crate::units::render::{Renderer, Sandbox};
use crate::units::text::Text;
use crate::units::{Restore, Unit};
use crate::values::Timespan;

/// What laying out and loading may take, at any size.
const LONG: Timespan = Timespan::from_secs(7 * 24 * 3600);
/// Directories are renamed and get what they had, and servers' files are theirs to touch.
const REPLACE: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN CAP_SETFCAP CAP_SETUID CAP_SETGID";
/// A Redis keeps its files where it says: mostly below one of these.
const REDIS: [&str; 4] = ["/var", "/srv", "/opt", "/data"];

/// Names of ours.
fn names<const N: usize>(units: [Restore; N]) -> Text {
    Text::names(units.map(Unit::Restore))
}

/// The command line of a restore's helper.
fn helper(renderer: &Renderer<'_>, words: &[&str]) -> Text {
    renderer.helper(&[&["restore"], words].concat())
}

/// A sandbox for what looks at, lays out or replaces GitLab's files: the same in all of them, for
/// what is one mount to one must be one to the others.
fn in_place(renderer: &Renderer<'_>, capabilities: &'static str) -> Sandbox {
    let redis = REDIS.iter().filter(|_| !renderer.config.redis.is_empty()).map(PathBuf::from);
    let own = [PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)];
    let writable = renderer.writable(own.into_iter().chain(redis).chain(renderer.tops()));
    Sandbox {
        network: renderer.servers_by_network(),
        processes: renderer.redis_by_network(),
        home: true,
        set_id: true,
        writable,
        ..renderer.sandbox(capabilities)
    }
}

/// A step in the window, which comes after `others` and needs them.
fn in_window(renderer: &Renderer<'_>, others: impl IntoIterator<Item = Restore>) -> StepService {
    let others: Vec<Unit> = others.into_iter().map(Unit::Restore).collect();
    let after = [Unit::Staging, Restore::Window.into()].into_iter().chain(others.clone());
    StepService {
        after: Text::names(after),
        requires: Text::names([Unit::Staging].into_iter().chain(others)),
        binds_to: names([Restore::Window, Restore::Run]),
        timeout: Text::plain(LONG),
        sandbox: Some(in_place(renderer, REPLACE)),
        ..StepService::base()
    }
}
