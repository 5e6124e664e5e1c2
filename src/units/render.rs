//! From the plan to the files. One template per kind of unit; a template's fields are [`Text`]s, so
//! nothing reaches a file unescaped.

pub mod credential;
mod monitoring;
mod proxy;
mod restore;
mod steps;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use askama::Template;

use crate::config::{Config, Quiesce, ReadinessUrl, RedisAddress, Stage};
use crate::paths;

use super::text::Text;
use super::{Plan, Unit};

/// A unit file, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// The file's name.
    pub name: String,
    /// Its bytes.
    pub content: String,
}

/// The first line of every file that we write; `install` removes only files that start with it.
pub const HEADER: &str = "# Made by gitlab-backup generate: edits are lost, drop-ins are kept.";

/// Renders every unit of `config`. `program` is this program's absolute path on the host.
pub fn generate(config: &Config, program: &Path) -> Result<Vec<UnitFile>> {
    let renderer = Renderer { config, plan: Plan::new(config), program };
    renderer.plan.units().iter().map(|unit| renderer.file(unit)).collect()
}

/// How a unit may touch the world, beyond what every unit is denied (`templates/sandbox.inc`).
#[derive(Default)]
struct Sandbox {
    capabilities: &'static str,
    network: bool,
    /// Talks to systemd.
    bus: bool,
    /// Outside programs (restic, pg_dump) may do what ours need not.
    foreign: bool,
    /// Looks for the process behind an address.
    processes: bool,
    /// What is writable may be below /home.
    home: bool,
    /// Files are laid out as they were, with set-user-ID and set-group-ID bits.
    set_id: bool,
    /// Thaws what systemd does not.
    thaws: bool,
    /// Runs programs that are confined by landlock(7) and seccomp(2).
    confines: bool,
    /// Mounts file systems for others to see.
    mounts: bool,
    /// Sees the host's /tmp, because something is there.
    tmp: bool,
    writable: Option<Text>,
}

impl Sandbox {
    fn new(capabilities: &'static str) -> Self {
        Self { capabilities, bus: true, ..Self::default() }
    }
}

#[derive(Template)]
#[template(path = "timer.timer")]
struct Timer {
    description: Text,
    calendar: Text,
    randomized_delay: Text,
    unit: Text,
}

#[derive(Template)]
#[template(path = "calendar.service")]
struct Calendar {
    exec: Text,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "entry.target")]
struct Entry {
    description: &'static str,
    run: Text,
}

#[derive(Template)]
#[template(path = "run.service")]
struct Run {
    description: &'static str,
    target: Text,
    requires: Text,
    execute: Text,
    conclude: Text,
    /// What is started with it, and is not waited for or not required.
    wants: Option<Text>,
    silence: bool,
    report: bool,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "bracket.service")]
struct Bracket {
    description: &'static str,
    begin: Text,
    end: Text,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "pause.service")]
struct Pause {
    description: &'static str,
    run: Text,
    begin: Text,
    end: Text,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "window.service")]
struct Window {
    description: &'static str,
    /// What is stopped; none: the writers are frozen by the unit itself.
    writers: Option<Text>,
    thaw: Option<Text>,
    run: Text,
    pause: Text,
    deadline: Option<Text>,
    exec: Text,
    timeout: Text,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "deadline.timer")]
struct DeadlineTimer {
    max_downtime: Text,
}

#[derive(Template)]
#[template(path = "deadline.target")]
struct DeadlineTarget;

#[derive(Template)]
#[template(path = "resume.service")]
struct Resume {
    exec: Text,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "stage.target")]
struct StageTarget {
    description: &'static str,
    members: Text,
    window: Option<Text>,
}

struct Renderer<'a> {
    config: &'a Config,
    plan: Plan<'a>,
    program: &'a Path,
}

impl Renderer<'_> {
    fn file(&self, unit: &Unit) -> Result<UnitFile> {
        let content = self.render(unit).with_context(|| format!("cannot render {unit}"))?;
        Ok(UnitFile {
            name: unit.to_string(),
            content: format!("{HEADER}\n\n{}\n", content.trim_end()),
        })
    }

    /// With what every unit here must see.
    fn sandbox(&self, capabilities: &'static str) -> Sandbox {
        let config = self.config;
        let server = config.postgresql.iter().map(|postgresql| Path::new(&postgresql.host));
        let redis = config.redis.iter().filter_map(|redis| match &redis.address {
            RedisAddress::Unix(path) => Some(path.as_path()),
            RedisAddress::Tcp { .. } => None,
        });
        let readiness = config.gitlab.readiness.iter().filter_map(|readiness| match readiness {
            ReadinessUrl::Unix { socket, .. } => Some(socket.as_path()),
            ReadinessUrl::Http(_) => None,
        });
        let stored = config
            .repository
            .directory()
            .into_iter()
            .chain(config.files.paths.iter().map(PathBuf::as_path));
        let tmp = server
            .chain(redis)
            .chain(readiness)
            .chain(stored)
            .any(|path| paths::TMP.iter().any(|tmp| path.starts_with(tmp)));
        Sandbox { tmp, ..Sandbox::new(capabilities) }
    }

    /// The command line of one of our own helpers.
    fn helper(&self, words: &[&str]) -> Text {
        let program = self.program.to_string_lossy();
        let source = self.config.source.to_string_lossy();
        let argv: Vec<String> = [&*program, "--config", &*source, "helper"]
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect();
        Text::command(&argv)
    }

    fn render(&self, unit: &Unit) -> askama::Result<String> {
        let config = self.config;
        match unit {
            Unit::Timer => Timer {
                description: Text::plain("GitLab backup: when"),
                calendar: Text::plain(&config.schedule.calendar),
                randomized_delay: Text::plain(config.schedule.randomized_delay),
                unit: Text::names([Unit::Target]),
            }
            .render(),
            Unit::Calendar => Calendar {
                exec: self.calendars(),
                sandbox: Sandbox { bus: false, ..self.sandbox("") },
            }
            .render(),
            Unit::VerifyTimer => Timer {
                description: Text::plain("GitLab backup: when the newest run is verified"),
                calendar: Text::plain(config.verify.calendar.as_deref().unwrap_or_default()),
                randomized_delay: Text::plain(config.verify.randomized_delay),
                unit: Text::names([Unit::Verify]),
            }
            .render(),
            Unit::Verify => self.verify().render(),
            Unit::Target => {
                Entry { description: "GitLab backup", run: Text::names([Unit::Run]) }.render()
            }
            Unit::Run => Run {
                description: "GitLab backup: drive the stages",
                target: Text::names([Unit::Target]),
                requires: Text::names([Unit::Staging]),
                execute: self.helper(&["execute"]),
                conclude: match self.plan.report() {
                    Some(_) => self.helper(&["conclude", "--report"]),
                    None => self.helper(&["conclude"]),
                },
                wants: self.wanted(),
                silence: self.plan.silence().is_some(),
                report: self.plan.report().is_some(),
                sandbox: Sandbox {
                    writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                    ..self.sandbox("")
                },
            }
            .render(),
            Unit::Staging => Bracket {
                description: "GitLab backup: the staging area is there",
                begin: self.helper(&["staging", "begin"]),
                end: self.helper(&["staging", "end"]),
                credentials: Vec::new(),
                sandbox: Sandbox {
                    bus: false,
                    ..self.sandbox("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER")
                },
            }
            .render(),
            Unit::Pause => Pause {
                description: "GitLab backup: GitLab is paused and will be resumed",
                run: Text::names([Unit::Run]),
                begin: self.pause(config.gitlab.quiesce == Quiesce::Stop),
                end: self.helper(&["unpause"]),
                sandbox: self.sandbox(""),
            }
            .render(),
            Unit::Window => Window {
                description: "GitLab backup: GitLab is down",
                writers: (config.gitlab.quiesce == Quiesce::Stop)
                    .then(|| Text::names(config.gitlab.conflicting())),
                thaw: (config.gitlab.quiesce == Quiesce::Freeze).then(|| self.helper(&["thaw"])),
                run: Text::names([Unit::Run]),
                pause: Text::names([Unit::Pause]),
                deadline: Some(Text::names([Unit::DeadlineTimer])),
                exec: self.helper(&["window"]),
                timeout: self.window_timeout(config.gitlab.quiesce == Quiesce::Stop),
                sandbox: Sandbox {
                    thaws: config.gitlab.quiesce == Quiesce::Freeze,
                    writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                    ..self.sandbox("")
                },
            }
            .render(),
            Unit::DeadlineTimer => {
                DeadlineTimer { max_downtime: Text::plain(config.gitlab.max_downtime) }.render()
            }
            Unit::DeadlineTarget => DeadlineTarget.render(),
            Unit::Resume => Resume {
                exec: self.helper(&["resume"]),
                sandbox: Sandbox {
                    // A readiness URL behind a unix socket may ask for the socket owner's rights.
                    network: true,
                    thaws: config.gitlab.quiesce == Quiesce::Freeze,
                    writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                    ..self.sandbox("CAP_DAC_OVERRIDE")
                },
            }
            .render(),
            Unit::Stage(stage) => StageTarget {
                description: match stage {
                    Stage::Prepare => {
                        "GitLab backup: everything that can be done before GitLab is stopped"
                    }
                    Stage::Window => "GitLab backup: every part is captured",
                    Stage::Store => "GitLab backup: everything is in the repository",
                    Stage::Finish => "GitLab backup: what follows a complete run",
                },
                members: Text::names(self.plan.members(*stage)),
                window: (*stage == Stage::Window).then(|| Text::names([Unit::Window])),
            }
            .render(),
            Unit::Restore(unit) => self.restore(*unit),
            Unit::Silence
            | Unit::UnsilenceTimer
            | Unit::Unsilence
            | Unit::ReportStart
            | Unit::Report => self.monitoring(unit),
            Unit::Proxy(name) => self.proxy(name),
            Unit::Proxies => self.proxies(),
            step => self.step(step)?.render(),
        }
    }

    /// Tells the calendar of each timer.
    fn calendars(&self) -> Text {
        let config = self.config;
        let of = |timer: &Unit| match timer {
            Unit::VerifyTimer => config.verify.calendar.as_deref().unwrap_or_default(),
            _ => config.schedule.calendar.as_str(),
        };
        let words: Vec<String> =
            self.plan.timers().iter().map(|timer| format!("{timer}={}", of(timer))).collect();
        self.helper(
            &["calendar"].into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>(),
        )
    }

    /// The directories at the top of the host in which the files lie: a rename stays within one
    /// mount, so within one writable path.
    fn tops(&self) -> Vec<PathBuf> {
        let top = |path: &PathBuf| path.components().take(2).collect::<PathBuf>();
        let mut tops: Vec<PathBuf> = self.config.files.places().map(top).collect();
        tops.sort();
        tops.dedup();
        tops
    }

    /// `ReadWritePaths=` of these, none inside another. With `-`: one that is missing is for the
    /// unit to say, in words.
    fn writable(&self, paths: impl IntoIterator<Item = PathBuf>) -> Option<Text> {
        let mut paths: Vec<PathBuf> = paths.into_iter().collect();
        paths.sort();
        paths.dedup();
        let inside =
            |path: &PathBuf| paths.iter().any(|other| path != other && path.starts_with(other));
        let named: Vec<String> = paths
            .iter()
            .filter(|path| !inside(path))
            .map(|path| format!("-{}", path.display()))
            .collect();
        (!named.is_empty()).then(|| Text::paths(named.iter().map(Path::new)))
    }

    /// Whether PostgreSQL or a Redis is reached by an address, and not by a socket.
    fn servers_by_network(&self) -> bool {
        self.postgresql_by_network() || self.redis_by_network()
    }

    fn postgresql_by_network(&self) -> bool {
        self.config.postgresql.as_ref().is_some_and(|postgresql| !postgresql.host.starts_with('/'))
    }

    fn redis_by_network(&self) -> bool {
        self.config.redis.iter().any(|redis| matches!(redis.address, RedisAddress::Tcp { .. }))
    }

    /// Begins a pause, in which the writers are `stopped` or not.
    fn pause(&self, stopped: bool) -> Text {
        let alone = self.config.gitlab.stopped_alone.iter().filter(|_| stopped);
        let words: Vec<&str> =
            ["pause"].into_iter().chain(alone.flat_map(|unit| ["--stop", unit.as_str()])).collect();
        self.helper(&words)
    }

    /// How long a window may take to open: no time for a look at what is down, and any for stops
    /// that it waits for itself; those that systemd waits for have no limit either, but the
    /// deadline.
    fn window_timeout(&self, stopped: bool) -> Text {
        let waits = stopped && !self.config.gitlab.stopped_alone.is_empty();
        Text::plain(if waits { "infinity" } else { "60s" })
    }

    /// What the executor has started along with it.
    fn wanted(&self) -> Option<Text> {
        let units: Vec<Unit> =
            [self.plan.silence(), self.plan.report_start()].into_iter().flatten().collect();
        (!units.is_empty()).then(|| Text::names(units))
    }
}
