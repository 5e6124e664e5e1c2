//! The units that keep a half-restored GitLab down at boot.

use askama::Template;

use super::helper;
use crate::units::render::Sandbox;
use crate::units::row::{Row, When, always, proxies};
use crate::units::text::Text;

pub const GUARD: Row = Row {
    name: "gitlab-backup-restore-guard.service",
    when: When::Alone,
    needed: always,
    text: |renderer, _| {
        // On the command line, so that the guard works even if the configuration is invalid.
        let writers = &renderer.config.gitlab.writers;
        let words = writers.iter().flat_map(|writer| ["--stop", writer.as_str()]);
        let words: Vec<&str> = std::iter::once("guard").chain(words).collect();
        Guard {
            writers: Text::names(writers),
            exec: helper(renderer, &words),
            sandbox: renderer.sandbox(""),
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "guard.service")]
struct Guard {
    writers: Text,
    exec: Text,
    sandbox: Sandbox,
}

pub const KEEP_DOWN: Row = Row {
    name: "gitlab-backup-restore-keep-down.service",
    when: When::Alone,
    needed: proxies,
    text: |renderer, _| KeepDown { exec: helper(renderer, &["keep-down"]) }.render(),
};

#[derive(Template)]
#[template(path = "keep-down.service")]
struct KeepDown {
    exec: Text,
}
