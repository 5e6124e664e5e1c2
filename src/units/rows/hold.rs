//! The bracket in which GitLab is held still: it stops what works without users, freezes the rest
//! at a moment at which nothing is in progress, and lets it go at its end.

use std::path::Path;
use std::time::Duration;

use askama::Template;

use crate::config::Stage;
use crate::paths;
use crate::units::Unit;
use crate::units::render::{Renderer, Sandbox};
use crate::units::row::{Row, When, holds};
use crate::units::text::Text;
use crate::values::Timespan;

/// To stop the listener of an SSH server and to let it go, to see the sockets of Puma and the
/// processes of Gitaly, and to report to systemd for a frozen unit that has a watchdog.
const RIGHTS: &str = "CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_ADMIN";
/// How much longer than it limits itself the holder may take to say why it gives up.
const SPARE: Duration = Duration::from_secs(2);
/// The same for its start: it waits for a moment at which nothing is in progress, in which nobody
/// has to wait.
const SEARCH: Duration = Duration::from_secs(60);

pub const HOLD: Row = Row {
    name: "gitlab-backup-hold.service",
    when: When::PulledIn(Stage::Window),
    needed: holds,
    text: |renderer, _| {
        let gitlab = &renderer.config.gitlab;
        let stopped: Vec<_> = gitlab.stopped_by_hold().collect();
        let limit = |spare| Text::plain(Timespan::from(gitlab.hold.longest.duration() + spare));
        Hold {
            description: "GitLab backup: GitLab is held still",
            stopped: (!stopped.is_empty()).then(|| Text::names(stopped)),
            run: Text::names([Unit::Run]),
            pause: Text::names([Unit::Pause]),
            exec: renderer.helper(&["hold"]),
            release: renderer.helper(&["release"]),
            start_timeout: limit(SEARCH),
            longest: limit(SPARE),
            sandbox: sandbox(renderer),
        }
        .render()
    },
};

fn sandbox(renderer: &Renderer<'_>) -> Sandbox {
    Sandbox {
        processes: true,
        thaws: true,
        writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
        ..renderer.sandbox(RIGHTS)
    }
}

#[derive(Template)]
#[template(path = "hold.service")]
struct Hold {
    description: &'static str,
    /// The units that work without users.
    stopped: Option<Text>,
    run: Text,
    pause: Text,
    exec: Text,
    release: Text,
    start_timeout: Text,
    longest: Text,
    sandbox: Sandbox,
}
