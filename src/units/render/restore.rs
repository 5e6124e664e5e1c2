//! The units of a restore.

use std::path::{Path, PathBuf};

use askama::Template;

use crate::config::{EngineName, Postgresql};
use crate::paths;
use crate::units::text::Text;
use crate::units::{Restore, Unit};
use crate::values::Timespan;

use super::steps::StepService;
use super::{Bracket, Entry, Pause, Renderer, Run, Sandbox, StageTarget, Window, credential};

/// What laying out and loading may take, at any size.
const LONG: Timespan = Timespan::from_secs(7 * 24 * 3600);
/// What the renames may take, beside the servers' own start.
const SWITCH: u64 = 30 * 60;
/// Files keep their owner, mode and attributes.
const LAY: &str =
    "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN CAP_SETFCAP CAP_MKNOD";
/// Dumps are handed over, and nobody else's files are touched.
const DUMPS: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN";
/// Servers are asked as their own users, and what is rehearsed with is handed over.
const REHEARSE: &str =
    "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN CAP_KILL CAP_SETUID CAP_SETGID";
/// Directories are renamed and get what they had, and servers' files are theirs to touch.
const REPLACE: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_CHOWN CAP_SETFCAP CAP_SETUID CAP_SETGID";

/// A Redis keeps its files where it says: mostly below one of these.
const REDIS: [&str; 4] = ["/var", "/srv", "/opt", "/data"];

/// To become the users that ask PostgreSQL, and to give the dumps to them.
const LOADING: &str =
    "CAP_SETUID CAP_SETGID CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_KILL";

#[derive(Template)]
#[template(path = "guard.service")]
struct Guard {
    writers: Text,
    exec: Text,
    sandbox: Sandbox,
}

/// Names of ours.
fn names<const N: usize>(units: [Restore; N]) -> Text {
    Text::names(units.map(Unit::Restore))
}

impl Renderer<'_> {
    /// A sandbox for what looks at, lays out or replaces GitLab's files: the same in all of them,
    /// for what is one mount to one must be one to the others.
    fn in_place(&self, capabilities: &'static str) -> Sandbox {
        let redis = REDIS.iter().filter(|_| !self.config.redis.is_empty()).map(PathBuf::from);
        let own = [PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)];
        let writable = self.writable(own.into_iter().chain(redis).chain(self.tops()));
        let (network, processes) = (self.servers_by_network(), self.redis_by_network());
        Sandbox {
            network,
            processes,
            home: true,
            set_id: true,
            writable,
            ..self.sandbox(capabilities)
        }
    }

    pub(super) fn restore(&self, unit: Restore) -> askama::Result<String> {
        let helper = |words: &[&str]| self.helper(&[&["restore"], words].concat());
        match unit {
            Restore::Target => Entry { description: "GitLab restore", run: names([Restore::Run]) }.render(),
            Restore::Run => Run {
                description: "GitLab restore: drive the stages",
                target: names([Restore::Target]),
                requires: Text::names([Unit::Staging, Restore::Staging.into()]),
                execute: helper(&["execute"]),
                conclude: helper(&["conclude"]),
                wants: self.plan.silence().map(|silence| Text::names([silence])),
                silence: self.plan.silence().is_some(),
                report: false,
                sandbox: Sandbox {
                    network: self.redis_by_network(),
                    processes: self.redis_by_network(),
                    writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                    // Asks who is behind Redis' socket, where only GitLab may.
                    ..self.sandbox("CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_SETUID CAP_SETGID")
                },
            }
            .render(),
            Restore::Staging => Bracket {
                description: "GitLab restore: what is laid out goes, unless it took its place",
                begin: helper(&["begin"]),
                end: helper(&["unstage"]),
                credentials: self.credentials(false, true, true),
                sandbox: self.in_place(REPLACE),
            }
            .render(),
            Restore::Pause => Pause {
                description: "GitLab restore: GitLab is paused and will be resumed, unless it is half restored",
                run: names([Restore::Run]),
                begin: self.pause(true),
                end: self.helper(&["unpause"]),
                sandbox: self.sandbox(""),
            }
            .render(),
            Restore::Window => Window {
                description: "GitLab restore: GitLab is down",
                // A restore stops them, whatever a backup does.
                writers: Some(Text::names(self.config.gitlab.conflicting())),
                thaw: None,
                run: names([Restore::Run]),
                pause: names([Restore::Pause]),
                deadline: None,
                exec: self.helper(&["window", "--stopped"]),
                timeout: self.window_timeout(true),
                sandbox: self.sandbox(""),
            }
            .render(),
            Restore::Apply => StageTarget {
                description: "GitLab restore: everything is in place",
                members: Text::names(self.plan.restore().into_iter().map(Unit::Restore)),
                window: Some(names([Restore::Window])),
            }
            .render(),
            Restore::Guard => {
                // Named here: what keeps a half restored GitLab down does not hang on a file that
                // was broken meanwhile.
                let writers = self.config.gitlab.writers.iter().flat_map(|writer| ["--stop", writer.as_str()]);
                let guard: Vec<&str> = std::iter::once("guard").chain(writers).collect();
                Guard { writers: Text::names(&self.config.gitlab.writers), exec: helper(&guard), sandbox: self.sandbox("") }.render()
            }
            Restore::KeepDown => self.keep_down(),
            step => self.restore_step(step).render(),
        }
    }

    /// What lays out reads the repository, and asks no server.
    fn laying_out(&self, unit: Restore) -> Sandbox {
        let foreign = self.config.repository.engine == EngineName::Restic;
        let network = self.repository_path().is_none();
        match unit {
            Restore::Dumps => {
                let writable =
                    self.writable([PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)]);
                Sandbox { network, foreign, bus: false, writable, ..self.sandbox(DUMPS) }
            }
            _ => Sandbox { network, foreign, bus: false, processes: false, ..self.in_place(LAY) },
        }
    }

    fn restore_step(&self, unit: Restore) -> StepService {
        let in_window = StepService {
            binds_to: names([Restore::Window, Restore::Run]),
            timeout: Text::plain(LONG),
            sandbox: Some(self.in_place(REPLACE)),
            ..StepService::base()
        };
        let behind = |units: Vec<Restore>| {
            let units: Vec<Unit> = [Unit::Staging, Restore::Window.into()]
                .into_iter()
                .chain(units.into_iter().map(Unit::Restore))
                .collect();
            (
                Text::names(&units),
                Text::names(units.into_iter().filter(|unit| *unit != Restore::Window.into())),
            )
        };
        let exec = |word: &str| self.helper(&["restore", word]);
        match unit {
            Restore::Preflight => StepService {
                description: Text::plain(
                    "GitLab restore: check everything before GitLab is touched",
                ),
                exec: exec("preflight"),
                credentials: self.credentials(true, true, true),
                mounts: self.repository_path(),
                binds_to: names([Restore::Run]),
                sandbox: Some(Sandbox {
                    network: self.servers_by_network() || self.repository_path().is_none(),
                    foreign: self.config.repository.engine == EngineName::Restic
                        || self.config.postgresql.is_some(),
                    ..self.in_place(REHEARSE)
                }),
                ..in_window
            },
            Restore::Undo => {
                let (after, requires) = behind(vec![]);
                StepService {
                    description: Text::plain(
                        "GitLab restore: put back what an unfinished restore has replaced",
                    ),
                    exec: exec("undo"),
                    credentials: self.credentials(false, true, true),
                    after,
                    requires,
                    ..in_window
                }
            }
            Restore::Dumps | Restore::Files => {
                let (after, requires) = behind(vec![Restore::Undo]);
                let (what, word) = match unit {
                    Restore::Dumps => ("GitLab restore: lay the dumps out", "dumps"),
                    _ => ("GitLab restore: lay the files out beside the old ones", "files"),
                };
                StepService {
                    description: Text::plain(what),
                    exec: exec(word),
                    credentials: self.credentials(true, false, false),
                    mounts: self.repository_path(),
                    after,
                    requires,
                    sandbox: Some(self.laying_out(unit)),
                    ..in_window
                }
            }
            Restore::Postgresql => {
                let (after, requires) = behind(vec![Restore::Dumps]);
                let step = self.postgresql_step(StepService {
                    description: Text::plain(
                        "GitLab restore: load the dumps beside the old databases",
                    ),
                    exec: exec("postgresql"),
                    after,
                    requires,
                    ..in_window
                });
                let plan =
                    credential::file(credential::RESTORE_PLAN, Path::new(paths::RESTORE_PLAN));
                let credentials = [vec![plan], step.credentials].concat();
                match self.config.postgresql.as_ref().is_some_and(Postgresql::by_socket) {
                    // It asks as one user and loads as another, who is given the dumps.
                    true => StepService {
                        user: None,
                        credentials,
                        sandbox: Some(Sandbox {
                            foreign: true,
                            bus: false,
                            writable: self.writable([PathBuf::from(paths::RESTORE_DUMPS)]),
                            ..self.sandbox(LOADING)
                        }),
                        ..step
                    },
                    false => StepService { credentials, ..step },
                }
            }
            Restore::ProxiesDown => {
                let others = self
                    .plan
                    .restore()
                    .into_iter()
                    .filter(|unit| !matches!(unit, Restore::ProxiesDown | Restore::Switch))
                    .collect();
                let (after, requires) = behind(others);
                // Other people's programs, as in a backup.
                StepService {
                    after,
                    requires,
                    ..self.proxies_down(StepService { sandbox: None, ..in_window })
                }
            }
            Restore::Switch => {
                let before = self
                    .plan
                    .restore()
                    .into_iter()
                    .filter(|unit| *unit != Restore::Switch)
                    .collect();
                let (after, requires) = behind(before);
                let servers: u64 =
                    self.config.redis.iter().map(|redis| redis.timeout.duration().as_secs()).sum();
                StepService {
                    description: Text::plain("GitLab restore: the new takes the place of the old"),
                    exec: exec("switch"),
                    credentials: self.credentials(false, true, true),
                    timeout: Text::plain(Timespan::from_secs(SWITCH + servers)),
                    after,
                    requires,
                    ..in_window
                }
            }
            // Finish; everything else has a template of its own.
            _ => StepService {
                sandbox: Some(Sandbox {
                    bus: false,
                    processes: false,
                    network: self.postgresql_by_network() || self.readiness_by_network(),
                    ..self.in_place(REPLACE)
                }),
                description: Text::plain("GitLab restore: remove what was there before"),
                exec: exec("finish"),
                credentials: self.credentials(false, true, true),
                retry: Some(10),
                // Bound to no executor: it also comes when GitLab has answered late, or before the
                // next run.
                binds_to: names([]),
                requires: names([]),
                ..in_window
            },
        }
    }
}
