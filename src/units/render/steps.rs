//! The steps of a backup's stages: what they have in common, and what makes each different.

use std::path::{Path, PathBuf};

use askama::Template;

use crate::config::{EngineName, Files, Method, ReadinessUrl, Stage, Step};
use crate::paths;
use crate::units::Unit;
use crate::units::text::Text;
use crate::values::Timespan;

use super::{Renderer, Sandbox, credential, monitoring};

/// mount(2) and ioctl(2) ask for SYS_ADMIN; directories of ours lie beside GitLab's, and lvm locks
/// its memory and raises its priority.
const SNAPSHOTS: &str = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SYS_RESOURCE CAP_SYS_RAWIO";

/// Directories of ours lie in those of others.
const BESIDE: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER";

/// A unit of a stage: what all steps have in common, and what makes each different.
#[derive(Template)]
#[template(path = "step.service")]
pub(super) struct StepService {
    /// What the reader of the unit should know.
    pub(super) notes: Vec<Text>,
    pub(super) description: Text,
    pub(super) exec: Text,
    /// What undoes it: the unit stays up until then.
    pub(super) end: Option<Text>,
    /// `oneshot` or `notify`.
    pub(super) kind: &'static str,
    pub(super) after: Text,
    pub(super) requires: Text,
    pub(super) binds_to: Text,
    pub(super) user: Option<Text>,
    pub(super) timeout: Text,
    /// `TimeoutStopSec=`; none: systemd's own.
    pub(super) stop_timeout: Option<Text>,
    /// Seconds between attempts; none: a failure is final at once.
    pub(super) retry: Option<u32>,
    pub(super) credentials: Vec<Text>,
    /// A directory of the unit's own below the staging area.
    pub(super) staging: Option<Text>,
    /// `RequiresMountsFor=`.
    pub(super) mounts: Option<Text>,
    pub(super) runtime: bool,
    pub(super) idle: bool,
    /// Not ours: it may tell systemd nothing, such as that it needs more time.
    pub(super) outside: bool,
    pub(super) sandbox: Option<Sandbox>,
}

impl StepService {
    pub(super) fn base() -> Self {
        Self {
            notes: Vec::new(),
            description: Text::plain(""),
            exec: Text::plain(""),
            end: None,
            kind: "oneshot",
            after: Text::names([Unit::Staging]),
            requires: Text::names([Unit::Staging]),
            binds_to: Text::names([Unit::Run]),
            user: None,
            timeout: Text::plain(Timespan::from_secs(300)),
            stop_timeout: None,
            retry: None,
            credentials: Vec::new(),
            staging: None,
            mounts: None,
            runtime: false,
            idle: false,
            outside: false,
            sandbox: None,
        }
    }
}

/// A unit that nobody has said anything of.
fn missing(unit: &Unit) -> askama::Error {
    askama::Error::custom(std::io::Error::other(format!("there is no text for {unit}")))
}

impl Renderer<'_> {
    /// The steps of the stages, one arm for each.
    pub(super) fn step(&self, unit: &Unit) -> askama::Result<StepService> {
        let config = self.config;
        let base = StepService::base();
        let after = |units: Vec<Unit>| Text::names([vec![Unit::Staging], units].concat());
        let step = match unit {
            Unit::Preflight => StepService {
                description: Text::plain("GitLab backup: check everything before GitLab is touched"),
                exec: self.helper(&["preflight"]),
                // It may have to wait until somebody else has done in the repository.
                timeout: Text::plain(Timespan::from_secs(24 * 3600)),
                credentials: self.credentials(true, false, true),
                mounts: self.repository_path(),
                sandbox: Some(Sandbox {
                    network: self.servers_by_network() || self.repository_path().is_none() || self.readiness_by_network(),
                    processes: self.redis_by_network(),
                    foreign: true,
                    writable: self.repository_writable(),
                    // Connects where only GitLab may, and looks at Redis' files as Redis.
                    ..self.sandbox("CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID")
                }),
                ..base
            },
            Unit::PreflightPostgresql => self.postgresql_step(StepService {
                description: Text::plain("GitLab backup: check PostgreSQL before GitLab is touched"),
                exec: self.helper(&["preflight-postgresql"]),
                ..base
            }),
            Unit::FsPlan => StepService {
                notes: self.methods(),
                description: Text::plain("GitLab backup: decide how each path is captured"),
                exec: self.helper(&["fsplan"]),
                after: after(self.before(Stage::Prepare, unit)),
                requires: after(self.before(Stage::Prepare, unit)),
                sandbox: Some(self.snapshots()),
                ..base
            },
            Unit::FsSnapshot => StepService {
                description: Text::plain("GitLab backup: snapshots of the file systems"),
                exec: self.helper(&["fssnapshot", "begin"]),
                end: Some(self.helper(&["fssnapshot", "end"])),
                kind: "notify",
                after: after(vec![Unit::Window]),
                timeout: Text::plain(config.gitlab.max_downtime),
                sandbox: Some(self.snapshots()),
                ..base
            },
            Unit::Presync => StepService {
                description: Text::plain("GitLab backup: first pass of the file backup, GitLab is up"),
                exec: self.helper(&["presync"]),
                after: after(self.before(Stage::Prepare, unit)),
                requires: after(self.before(Stage::Prepare, unit)),
                timeout: Text::plain(Timespan::from_secs(24 * 3600)),
                retry: Some(10),
                idle: true,
                ..self.repository_step(base)
            },
            Unit::Silenced => StepService {
                description: Text::plain("GitLab backup: wait until the monitoring is silent"),
                exec: self.helper(&["silenced"]),
                after: after(self.before(Stage::Prepare, unit)),
                requires: after(self.before(Stage::Prepare, unit)),
                timeout: Text::plain(Timespan::from_secs(config.monitoring.wait.duration().as_secs() + 120)),
                credentials: self.silence_credentials(),
                // The directory with the record of silences, which outlives the unit.
                sandbox: Some(Sandbox { writable: Some(Text::paths([Path::new(paths::STATE)])), ..monitoring::told() }),
                ..base
            },
            Unit::PgSnapshot => {
                let postgresql = StepService {
                    description: Text::plain("GitLab backup: hold a snapshot of every database"),
                    exec: self.helper(&["pgsnapshot"]),
                    kind: "notify",
                    after: after(vec![Unit::Window]),
                    timeout: Text::plain(Timespan::from_secs(60)),
                    runtime: true,
                    ..base
                };
                self.postgresql_step(postgresql)
            }
            Unit::Redis => StepService {
                description: Text::plain("GitLab backup: fork Redis in the window, then secure the file"),
                exec: self.helper(&["redis"]),
                kind: "notify",
                after: after(vec![Unit::Window]),
                timeout: Text::plain(config.redis.iter().map(|redis| redis.timeout).max().unwrap_or(Timespan::from_secs(60))),
                credentials: self.credentials(false, false, true),
                staging: Some(Text::plain("redis")),
                sandbox: Some(Sandbox {
                    network: self.redis_by_network(),
                    processes: self.redis_by_network(),
                    foreign: true,
                    bus: false,
                    confines: true,
                    // The socket belongs to Redis, dump.rdb is read as Redis, and looked at by an
                    // account that owns nothing.
                    ..self.sandbox("CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SETUID CAP_SETGID CAP_KILL")
                }),
                ..base
            },
            Unit::FilesLive => {
                let window = StepService {
                    description: Text::plain("GitLab backup: capture the files, GitLab is down"),
                    after: after(vec![Unit::Window]),
                    timeout: Text::plain(config.gitlab.max_downtime),
                    ..base
                };
                match &config.files {
                    Files { command: Some(command), .. } => {
                        // Of it nothing is known but its end: it dies with the window.
                        let binds_to = Text::names([Unit::Window, Unit::Run]);
                        StepService { exec: Text::command(command), binds_to, staging: Some(Text::plain("steps/files")), ..window }
                    }
                    _ => {
                        let step = StepService { exec: self.helper(&["files-live"]), kind: "notify", ..self.repository_step(window) };
                        // Clones are made where the files are.
                        match step.sandbox {
                            Some(sandbox) if self.clones() => {
                                let writable = self.writable(self.repository_paths().into_iter().chain(self.tops()));
                                StepService { sandbox: Some(Sandbox { writable, home: true, ..sandbox }), ..step }
                            }
                            sandbox => StepService { sandbox, ..step },
                        }
                    }
                }
            }
            Unit::ProxiesDown => self.proxies_down(StepService {
                after: after([vec![Unit::Window], self.before(Stage::Window, unit)].concat()),
                binds_to: Text::names([Unit::Window, Unit::Run]),
                ..base
            }),
            Unit::Postgresql => {
                let dump = StepService {
                    description: Text::plain("GitLab backup: dump PostgreSQL from the held snapshot, GitLab is up"),
                    exec: self.helper(&["postgresql"]),
                    after: after(vec![Unit::PgSnapshot]),
                    binds_to: Text::names([Unit::PgSnapshot, Unit::Run]),
                    timeout: Text::plain(Timespan::from_secs(24 * 3600)),
                    retry: Some(5),
                    staging: Some(Text::plain("postgresql")),
                    idle: true,
                    ..base
                };
                let step = self.postgresql_step(dump);
                // Where it tells the holder what it has.
                let writable = Some(Text::paths([Path::new(paths::PGSNAPSHOT)]));
                StepService { sandbox: step.sandbox.map(|sandbox| Sandbox { writable, ..sandbox }), ..step }
            }
            Unit::Files => StepService {
                description: Text::plain("GitLab backup: put the files and the dumps into the repository"),
                exec: self.helper(&["files"]),
                after: after(self.before(Stage::Store, unit)),
                requires: after(self.before(Stage::Store, unit)),
                timeout: Text::plain(Timespan::from_secs(24 * 3600)),
                retry: Some(10),
                idle: true,
                ..self.repository_step(base)
            },
            Unit::Manifest => StepService {
                description: Text::plain("GitLab backup: write the manifest, which makes the run complete"),
                exec: self.helper(&["manifest"]),
                timeout: Text::plain(Timespan::from_secs(24 * 3600)),
                after: after(vec![Unit::Files]),
                requires: after(vec![Unit::Files]),
                retry: Some(10),
                ..self.repository_step(base)
            },
            Unit::Prune => StepService {
                description: Text::plain("GitLab backup: remove what the retention no longer asks for"),
                exec: self.helper(&["prune"]),
                timeout: Text::plain(Timespan::from_secs(24 * 3600)),
                retry: Some(10),
                idle: true,
                ..self.noting_step(base)
            },
            Unit::Step(name) => match config.steps.iter().find(|step| step.name == *name) {
                Some(step) => self.own_step(step, base),
                None => return Err(missing(unit)),
            },
            // Everything else has a template of its own.
            _ => return Err(missing(unit)),
        };
        Ok(step)
    }

    /// A `[[step]]` of the configuration: an outside program with the rights that its user has, and
    /// no sandbox that could break it.
    pub(super) fn own_step(&self, step: &Step, base: StepService) -> StepService {
        let (before, binds_to) = match step.stage {
            Stage::Prepare => (self.plan.preflights(), vec![Unit::Run]),
            Stage::Window => (vec![Unit::Window], vec![Unit::Window, Unit::Run]),
            Stage::Store => {
                (self.config.postgresql.iter().map(|_| Unit::Postgresql).collect(), vec![Unit::Run])
            }
            Stage::Finish => (self.plan.prune().into_iter().collect(), vec![Unit::Run]),
        };
        // The window is bound to, not required: a requirement would be the weaker of the two. What
        // follows a complete run does so even if old runs could not be removed.
        let required = if matches!(step.stage, Stage::Window | Stage::Finish) {
            vec![]
        } else {
            before.clone()
        };
        StepService {
            description: Text::prose(step.description.as_deref().unwrap_or(&step.name)),
            exec: Text::command(&step.command),
            after: Text::names([vec![Unit::Staging], before].concat()),
            requires: Text::names([vec![Unit::Staging], required].concat()),
            binds_to: Text::names(binds_to),
            user: step.user.as_ref().map(|user| Text::names([user])),
            timeout: Text::plain(step.timeout),
            stop_timeout: (step.stage == Stage::Window)
                .then(|| Text::plain(self.config.gitlab.stop_grace)),
            staging: Some(Text::plain(format!("steps/{}", step.name))),
            idle: step.stage != Stage::Window,
            outside: true,
            ..base
        }
    }

    /// How each path is to be captured. What "auto" comes to is decided on the host: 'gitlab-backup
    /// check' tells.
    fn methods(&self) -> Vec<Text> {
        let files = &self.config.files;
        files
            .paths
            .iter()
            .map(|path| {
                Text::prose(&format!("{}: snapshot = \"{}\"", path.display(), files.method(path)))
            })
            .collect()
    }

    /// A sandbox for what makes, mounts and removes snapshots with the file systems' own tools;
    /// where there are no such file systems, for what makes and removes directories beside
    /// GitLab's.
    fn snapshots(&self) -> Sandbox {
        if self.config.files.volumes {
            return Sandbox { mounts: true, foreign: true, ..self.sandbox(SNAPSHOTS) };
        }
        let beside = if self.clones() { self.tops() } else { Vec::new() };
        let writable = self.writable(
            [PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)].into_iter().chain(beside),
        );
        Sandbox { foreign: true, home: true, bus: false, writable, ..self.sandbox(BESIDE) }
    }

    /// Whether a path may be captured by clones.
    fn clones(&self) -> bool {
        let files = &self.config.files;
        let may = |method: Method| matches!(method, Method::Auto | Method::Reflink);
        self.config.repository.engine == EngineName::Builtin
            && files.paths.iter().any(|path| may(files.method(path)))
    }

    /// The members of `stage` that come before `unit`.
    pub(super) fn before(&self, stage: Stage, unit: &Unit) -> Vec<Unit> {
        self.plan.members(stage).into_iter().take_while(|member| member != unit).collect()
    }

    /// A step that talks to PostgreSQL, as the user that may.
    pub(super) fn postgresql_step(&self, base: StepService) -> StepService {
        StepService {
            user: self
                .config
                .postgresql
                .as_ref()
                .map(|postgresql| Text::names([&postgresql.os_user])),
            // The configuration comes as a credential too: its reader here is not root.
            credentials: [
                credential::configuration(&self.config.source),
                self.credentials(false, true, false),
            ]
            .concat(),
            sandbox: Some(Sandbox {
                network: self.postgresql_by_network(),
                foreign: true,
                ..self.sandbox("")
            }),
            ..base
        }
    }

    /// A step that reads everything and writes the repository.
    pub(super) fn repository_step(&self, base: StepService) -> StepService {
        StepService {
            credentials: self.credentials(true, false, false),
            staging: Some(Text::plain("parts")),
            mounts: self.repository_path(),
            sandbox: Some(Sandbox {
                network: self.repository_path().is_none(),
                foreign: true,
                bus: false,
                writable: self.repository_writable(),
                ..self.sandbox("CAP_DAC_READ_SEARCH")
            }),
            ..base
        }
    }

    /// The same, of a step that notes in the records what it does to their runs.
    fn noting_step(&self, base: StepService) -> StepService {
        let step = self.repository_step(base);
        let paths: Vec<PathBuf> =
            self.repository_paths().into_iter().chain([PathBuf::from(paths::RUNS)]).collect();
        StepService {
            sandbox: step
                .sandbox
                .map(|sandbox| Sandbox { writable: self.writable(paths), ..sandbox }),
            ..step
        }
    }

    /// The repository's directory, if it is one.
    pub(super) fn repository_path(&self) -> Option<Text> {
        self.config.repository.directory().map(|directory| Text::paths([directory]))
    }

    /// The repository, and where its key is kept for the run.
    pub(super) fn repository_writable(&self) -> Option<Text> {
        self.writable(self.repository_paths())
    }

    /// The same, as paths.
    pub(super) fn repository_paths(&self) -> Vec<PathBuf> {
        let local = self.config.repository.directory().map(Path::to_owned);
        local.into_iter().chain([PathBuf::from(paths::RUNTIME)]).collect()
    }

    pub(super) fn readiness_by_network(&self) -> bool {
        matches!(self.config.gitlab.readiness, Some(ReadinessUrl::Http(_)))
    }
}
