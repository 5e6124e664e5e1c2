//! The units of a restore.

pub mod entry;
pub mod extract;
pub mod guard;
pub mod replace;
pub mod window;

use std::path::PathBuf;

use crate::paths;
use crate::units::render::step::StepService;
use crate::units::render::{Renderer, Sandbox};
use crate::units::text::Text;
use crate::units::{Restore, Unit};
use crate::values::Timespan;

/// The time limit for extracting and loading data of any size.
const LONG: Timespan = Timespan::from_secs(7 * 24 * 3600);
/// To rename directories, to restore their owners and modes, and to access servers' files as their
/// users.
const REPLACE: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN \
                       CAP_SETFCAP CAP_SETUID CAP_SETGID";
/// The top-level directories that may contain a Redis' data. Only the running server knows its
/// directory.
const REDIS: [&str; 4] = ["/var", "/srv", "/opt", "/data"];

/// The names of the units.
fn names<const N: usize>(units: [Restore; N]) -> Text {
    Text::names(units.map(Unit::Restore))
}

/// The command line of a helper of a restore.
fn helper(renderer: &Renderer<'_>, words: &[&str]) -> Text {
    renderer.helper(&[&["restore"], words].concat())
}

/// The sandbox of units that inspect, extract or replace GitLab's files. All of them have the same
/// writable paths, because these determine the mounts that the unit sees.
fn replacing(renderer: &Renderer<'_>, capabilities: &'static str) -> Sandbox {
    let redis = REDIS.iter().filter(|_| !renderer.config.redis.is_empty()).map(PathBuf::from);
    let own = [PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)];
    let writable =
        renderer.writable(own.into_iter().chain(redis).chain(renderer.top_directories()));
    Sandbox {
        network: renderer.servers_by_network(),
        processes: renderer.redis_by_network(),
        home: true,
        set_id: true,
        writable,
        ..renderer.sandbox(capabilities)
    }
}

/// A step that loads data beside the live data, ordered after `others` and requiring them. It is
/// not bound to the window: GitLab is up meanwhile, unless the restore stops it first.
fn loading(renderer: &Renderer<'_>, others: impl IntoIterator<Item = Restore>) -> StepService {
    let others: Vec<Unit> = others.into_iter().map(Unit::Restore).collect();
    StepService {
        requires: Text::names([Unit::Staging].into_iter().chain(others.clone())),
        binds_to: names([Restore::Run]),
        idle: true,
        ..step(renderer, others)
    }
}

/// `this` step, which needs GitLab to be down, ordered after the steps before it. It requires only
/// those that need the same: systemd would run again what has ended before the window.
fn replacing_step(renderer: &Renderer<'_>, this: Restore) -> StepService {
    let before = |steps: Vec<Restore>| {
        steps.into_iter().take_while(|other| *other != this).map(Unit::Restore).collect::<Vec<_>>()
    };
    let required = before(renderer.plan.replaces());
    StepService {
        requires: Text::names([Unit::Staging].into_iter().chain(required)),
        binds_to: names([Restore::Window, Restore::Run]),
        ..step(renderer, before(renderer.plan.restore()))
    }
}

fn step(renderer: &Renderer<'_>, others: Vec<Unit>) -> StepService {
    let after = [Unit::Staging, Restore::Window.into()].into_iter().chain(others);
    StepService {
        after: Text::names(after),
        timeout: Text::plain(LONG),
        sandbox: Some(replacing(renderer, REPLACE)),
        ..StepService::base()
    }
}
