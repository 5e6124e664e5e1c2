//! The steps that extract and load data beside the live data.

use std::path::{Path, PathBuf};

use askama::Template;

use super::{helper, loading, replacing};
use crate::config::{EngineName, Postgresql, Stage};
use crate::paths;
use crate::units::Restore;
use crate::units::render::step::StepService;
use crate::units::render::{Renderer, Sandbox, credential};
use crate::units::row::{Row, Steps, When, always, postgresql};
use crate::units::text::Text;

/// To restore owner, mode and attributes of files.
const EXTRACTING: &str =
    "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN CAP_SETFCAP CAP_MKNOD";
/// To give the dumps to the users that load them.
const DUMPING: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN";
/// To run as PostgreSQL's users, and to give the dumps to them.
const LOADING: &str =
    "CAP_SETUID CAP_SETGID CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_KILL";

pub const DUMPS: Row = Row {
    name: "gitlab-backup-restore-dumps.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: always,
    text: |renderer, _| {
        let own = [PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)];
        let sandbox = Sandbox { writable: renderer.writable(own), ..renderer.sandbox(DUMPING) };
        StepService {
            description: Text::plain("GitLab restore: extract the dumps"),
            exec: helper(renderer, &["dumps"]),
            ..extracting(renderer, sandbox)
        }
        .render()
    },
};

pub const FILES: Row = Row {
    name: "gitlab-backup-restore-files.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: always,
    text: |renderer, _| {
        let sandbox = Sandbox { processes: false, ..replacing(renderer, EXTRACTING) };
        StepService {
            description: Text::plain("GitLab restore: extract the files beside the old ones"),
            exec: helper(renderer, &["files"]),
            ..extracting(renderer, sandbox)
        }
        .render()
    },
};

/// A step that reads the repository, and contacts no server.
fn extracting(renderer: &Renderer<'_>, sandbox: Sandbox) -> StepService {
    StepService {
        credentials: renderer.credentials(true, false, false),
        mounts: renderer.repository_path(),
        sandbox: Some(Sandbox {
            network: renderer.repository_path().is_none(),
            foreign: renderer.config.repository.engine == EngineName::Restic,
            bus: false,
            ..sandbox
        }),
        ..loading(renderer, [Restore::Undo])
    }
}

pub const POSTGRESQL: Row = Row {
    name: "gitlab-backup-restore-postgresql.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: postgresql,
    text: |renderer, _| {
        let step = renderer.postgresql_step(StepService {
            description: Text::plain("GitLab restore: load the dumps beside the old databases"),
            exec: helper(renderer, &["postgresql"]),
            ..loading(renderer, [Restore::Dumps])
        });
        let plan = credential::file(credential::RESTORE_PLAN, Path::new(paths::RESTORE_PLAN));
        let step = StepService { credentials: [vec![plan], step.credentials].concat(), ..step };
        match renderer.config.postgresql.as_ref().is_some_and(Postgresql::by_socket) {
            // Root, because it uses two accounts: one connects to PostgreSQL, one loads the dumps.
            true => StepService {
                user: None,
                sandbox: Some(Sandbox {
                    foreign: true,
                    bus: false,
                    writable: renderer.writable([PathBuf::from(paths::RESTORE_DUMPS)]),
                    ..renderer.sandbox(LOADING)
                }),
                ..step
            },
            false => step,
        }
        .render()
    },
};
