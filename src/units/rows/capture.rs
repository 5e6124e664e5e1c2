//! The units of the window of a backup: they stop GitLab, capture its data and start it again.

use std::path::Path;

use askama::Template;

use crate::config::{Files, Quiesce, Stage};
use crate::paths;
use crate::units::Unit;
use crate::units::render::kinds::{Pause, WindowService};
use crate::units::render::step::StepService;
use crate::units::render::{Renderer, Sandbox};
use crate::units::row::{Row, Steps, When, always, captures_files, postgresql};
use crate::units::text::Text;
use crate::values::Timespan;

/// To connect to Redis' socket, to read dump.rdb as Redis' user, and to check it as an account that
/// owns no files.
const REDIS_RIGHTS: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_FSETID \
                            CAP_SETUID CAP_SETGID CAP_KILL";

pub const PAUSE: Row = Row {
    name: "gitlab-backup-pause.service",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        Pause {
            description: "GitLab backup: GitLab is paused and will be resumed",
            run: Text::names([Unit::Run]),
            begin: renderer.pause(renderer.config.gitlab.quiesce.may_stop()),
            end: renderer.helper(&["unpause"]),
            sandbox: renderer.sandbox(""),
        }
        .render()
    },
};

pub const WINDOW: Row = Row {
    name: "gitlab-backup-window.service",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        let gitlab = &renderer.config.gitlab;
        let stops = gitlab.quiesce.may_stop();
        WindowService {
            description: "GitLab backup: GitLab is down",
            note: note(renderer),
            writers: stops.then(|| renderer.stopped(false)),
            thaw: (!stops).then(|| renderer.helper(&["thaw"])),
            run: Text::names([Unit::Run]),
            pause: Text::names([Unit::Pause]),
            deadline: Some(Text::names([Unit::DeadlineTimer])),
            exec: renderer.helper(&["window"]),
            timeout: renderer.window_timeout(stops),
            sandbox: Sandbox {
                thaws: !stops,
                writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                ..renderer.sandbox("")
            },
        }
        .render()
    },
};

/// What the window has to do with a hold.
fn note(renderer: &Renderer<'_>) -> Option<Text> {
    let gitlab = &renderer.config.gitlab;
    match (&gitlab.hold.obstacle, gitlab.quiesce) {
        (Some(why), _) => Some(Text::prose(&format!("GitLab is not held still instead: {why}."))),
        (None, Quiesce::Hold) => {
            Some(Text::plain(format!("For a run that cannot hold GitLab still ({}).", Unit::Hold)))
        }
        (None, _) => None,
    }
}

pub const PGSNAPSHOT: Row = Row {
    name: "gitlab-backup-pgsnapshot.service",
    when: When::Member(Stage::Window, Steps::Before),
    needed: postgresql,
    text: |renderer, _| {
        let step = StepService {
            description: Text::plain("GitLab backup: hold a snapshot of every database"),
            exec: renderer.helper(&["pgsnapshot"]),
            kind: "notify",
            timeout: Text::plain(Timespan::from_secs(60)),
            runtime: true,
            ..StepService::base().after(renderer.plan.windows())
        };
        renderer.postgresql_step(step).render()
    },
};

pub const REDIS: Row = Row {
    name: "gitlab-backup-redis.service",
    when: When::Member(Stage::Window, Steps::Before),
    needed: |config| !config.redis.is_empty(),
    text: |renderer, _| {
        let longest = renderer.config.redis.iter().map(|redis| redis.timeout).max();
        StepService {
            description: Text::plain("GitLab backup: save Redis, which forks in the window"),
            exec: renderer.helper(&["redis"]),
            kind: "notify",
            timeout: Text::plain(longest.unwrap_or(Timespan::from_secs(60))),
            credentials: renderer.credentials(false, false, true),
            staging: Some(Text::plain("redis")),
            sandbox: Some(Sandbox {
                network: renderer.redis_by_network(),
                processes: renderer.redis_by_network(),
                foreign: true,
                bus: false,
                confines: true,
                ..renderer.sandbox(REDIS_RIGHTS)
            }),
            ..StepService::base().after(renderer.plan.windows())
        }
        .render()
    },
};

pub const FSSNAPSHOT: Row = Row {
    name: "gitlab-backup-fssnapshot.service",
    when: When::Member(Stage::Window, Steps::Before),
    needed: captures_files,
    text: |renderer, _| {
        StepService {
            description: Text::plain("GitLab backup: file system snapshots"),
            exec: renderer.helper(&["fssnapshot", "begin"]),
            end: Some(renderer.helper(&["fssnapshot", "end"])),
            kind: "notify",
            timeout: Text::plain(renderer.config.gitlab.max_downtime),
            sandbox: Some(renderer.snapshots()),
            ..StepService::base().after(renderer.plan.windows())
        }
        .render()
    },
};

pub const FILES_LIVE: Row = Row {
    name: "gitlab-backup-files-live.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: always,
    text: |renderer, _| {
        let step = StepService {
            description: Text::plain("GitLab backup: capture the files, GitLab is down"),
            timeout: Text::plain(renderer.config.gitlab.max_downtime),
            ..StepService::base().after(renderer.plan.windows())
        };
        match &renderer.config.files {
            Files { command: Some(command), .. } => StepService {
                exec: Text::command(command),
                // It cannot report when it has captured everything, so it must end in the window.
                binds_to: Text::names([Unit::Window, Unit::Run]),
                staging: Some(Text::plain("steps/files")),
                ..step
            }
            .render(),
            _ => files_live(renderer, step).render(),
        }
    },
};

/// The built-in capture of files. Clones are created on the file systems of the files.
fn files_live(renderer: &Renderer<'_>, step: StepService) -> StepService {
    let step = renderer.repository_step(step);
    let sandbox = step.sandbox.map(|sandbox| match renderer.clones() {
        true => {
            let places = renderer.repository_paths().into_iter().chain(renderer.top_directories());
            Sandbox { writable: renderer.writable(places), home: true, ..sandbox }
        }
        false => sandbox,
    });
    StepService { exec: renderer.helper(&["files-live"]), kind: "notify", sandbox, ..step }
}

pub const RESUME: Row = Row {
    name: "gitlab-backup-resume.service",
    when: When::Behind(Stage::Window),
    needed: always,
    text: |renderer, _| {
        Resume {
            exec: renderer.helper(&["resume"]),
            sandbox: Sandbox {
                // The network for a readiness URL, the capability for one on a Unix socket.
                network: true,
                thaws: renderer.config.gitlab.quiesce != Quiesce::Stop,
                writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                ..renderer.sandbox("CAP_DAC_OVERRIDE")
            },
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "resume.service")]
struct Resume {
    exec: Text,
    sandbox: Sandbox,
}
