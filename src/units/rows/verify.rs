//! The units that verify the newest run, independent of runs.

use askama::Template;

use crate::units::Unit;
use crate::units::render::Sandbox;
use crate::units::render::kinds::Timer;
use crate::units::row::{Row, When, always};
use crate::units::text::Text;

/// To extract files of many users, and to check them as an unprivileged account.
const RIGHTS: &str = "CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER CAP_FSETID \
                      CAP_SETUID CAP_SETGID CAP_KILL";

/// Reads the repository and never writes it.
pub const SERVICE: Row = Row {
    name: "gitlab-backup-verify.service",
    when: When::Alone,
    needed: always,
    text: |renderer, _| {
        VerifyService {
            exec: renderer.helper(&["verify"]),
            mounts: renderer.repository_path(),
            credentials: renderer.credentials(true, false, false),
            sandbox: Sandbox {
                network: renderer.repository_path().is_none(),
                foreign: true,
                set_id: true,
                confines: true,
                ..renderer.sandbox(RIGHTS)
            },
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "verify.service")]
struct VerifyService {
    exec: Text,
    mounts: Option<Text>,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

pub const TIMER: Row = Row {
    name: "gitlab-backup-verify.timer",
    when: When::Alone,
    needed: |config| config.verify.calendar.is_some(),
    text: |renderer, _| {
        let verify = &renderer.config.verify;
        Timer {
            description: Text::plain("GitLab backup verification schedule"),
            calendar: Text::plain(verify.calendar.as_deref().unwrap_or_default()),
            randomized_delay: Text::plain(verify.randomized_delay),
            unit: Text::names([Unit::Verify]),
        }
        .render()
    },
};
