//! From the plan to the files. One template per kind of unit; a template's fields are [`Text`]s, so nothing reaches a file unescaped.

mod monitoring;
mod restore;
mod verify;

use std::path::Path;

use anyhow::{Context, Result};
use askama::Template;

use crate::config::{Config, Files, Postgresql, Stage, Step};
use crate::paths;
use crate::values::{SecretSource, Timespan};

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
    /// Outside programs (restic, pg_dump) may do what ours need not.
    foreign: bool,
    /// Puts GitLab's files in place, wherever they are.
    everywhere: bool,
    /// Files are laid out as they were, with set-user-ID and set-group-ID bits.
    set_id: bool,
    writable: Option<Text>,
}

impl Sandbox {
    fn new(capabilities: &'static str) -> Self {
        Self { capabilities, ..Self::default() }
    }
}

#[derive(Template)]
#[template(path = "gitlab-backup.timer")]
struct Timer {
    description: Text,
    calendar: Text,
    randomized_delay: Text,
    unit: Text,
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
    writers: Text,
    run: Text,
    pause: Text,
    deadline: Option<Text>,
    exec: Text,
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

/// A unit of a stage: what all steps have in common, and what makes each different.
#[derive(Template)]
#[template(path = "step.service")]
struct StepService {
    description: Text,
    exec: Text,
    /// `oneshot` or `notify`.
    kind: &'static str,
    after: Text,
    requires: Text,
    binds_to: Text,
    user: Option<Text>,
    timeout: Text,
    /// Seconds between attempts; none: a failure is final at once.
    retry: Option<u32>,
    credentials: Vec<Text>,
    environment_file: Option<Text>,
    /// A directory of the unit's own below the staging area.
    staging: Option<Text>,
    /// `RequiresMountsFor=`.
    mounts: Option<Text>,
    runtime: bool,
    idle: bool,
    sandbox: Option<Sandbox>,
}

impl StepService {
    fn base() -> Self {
        Self {
            description: Text::plain(""),
            exec: Text::plain(""),
            kind: "oneshot",
            after: Text::names([Unit::Staging]),
            requires: Text::names([Unit::Staging]),
            binds_to: Text::names([Unit::Run]),
            user: None,
            timeout: Text::plain(Timespan::from_secs(300)),
            retry: None,
            credentials: Vec::new(),
            environment_file: None,
            staging: None,
            mounts: None,
            runtime: false,
            idle: false,
            sandbox: None,
        }
    }
}

struct Renderer<'a> {
    config: &'a Config,
    plan: Plan<'a>,
    program: &'a Path,
}

impl Renderer<'_> {
    fn file(&self, unit: &Unit) -> Result<UnitFile> {
        let content = self.render(unit).with_context(|| format!("cannot render {unit}"))?;
        Ok(UnitFile { name: unit.to_string(), content: format!("{HEADER}\n\n{}\n", content.trim_end()) })
    }

    /// The command line of one of our own helpers.
    fn helper(&self, words: &[&str]) -> Text {
        let program = self.program.to_string_lossy();
        let source = self.config.source.to_string_lossy();
        let argv: Vec<String> = [&*program, "--config", &*source, "helper"].iter().chain(words).map(|word| (*word).to_owned()).collect();
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
            Unit::VerifyTimer => Timer {
                description: Text::plain("GitLab backup: when the newest run is verified"),
                calendar: Text::plain(config.verify.calendar.as_deref().unwrap_or_default()),
                randomized_delay: Text::plain(config.verify.randomized_delay),
                unit: Text::names([Unit::Verify]),
            }
            .render(),
            Unit::Verify => self.verify().render(),
            Unit::Target => Entry { description: "GitLab backup", run: Text::names([Unit::Run]) }.render(),
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
                sandbox: Sandbox { writable: Some(Text::paths([Path::new(paths::RUNTIME)])), ..Sandbox::new("") },
            }
            .render(),
            Unit::Staging => Bracket {
                description: "GitLab backup: the staging area is there",
                begin: self.helper(&["staging", "begin"]),
                end: self.helper(&["staging", "end"]),
                credentials: Vec::new(),
                sandbox: Sandbox::new("CAP_DAC_OVERRIDE CAP_FOWNER"),
            }
            .render(),
            Unit::Pause => Pause {
                description: "GitLab backup: GitLab is paused and will be resumed",
                run: Text::names([Unit::Run]),
                begin: self.helper(&["pause"]),
                end: self.helper(&["unpause"]),
                sandbox: Sandbox::new(""),
            }
            .render(),
            Unit::Window => Window {
                description: "GitLab backup: GitLab is down",
                writers: Text::names(&config.gitlab.writers),
                run: Text::names([Unit::Run]),
                pause: Text::names([Unit::Pause]),
                deadline: Some(Text::names([Unit::DeadlineTimer])),
                exec: self.helper(&["window"]),
                sandbox: Sandbox::new(""),
            }
            .render(),
            Unit::DeadlineTimer => DeadlineTimer { max_downtime: Text::plain(config.gitlab.max_downtime) }.render(),
            Unit::DeadlineTarget => DeadlineTarget.render(),
            Unit::Resume => Resume {
                exec: self.helper(&["resume"]),
                sandbox: Sandbox {
                    // A readiness URL behind a unix socket may ask for the socket owner's rights.
                    network: true,
                    writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                    ..Sandbox::new("CAP_DAC_OVERRIDE")
                },
            }
            .render(),
            Unit::Stage(stage) => StageTarget {
                description: match stage {
                    Stage::Prepare => "GitLab backup: everything that can be done before GitLab is stopped",
                    Stage::Window => "GitLab backup: every part is captured",
                    Stage::Store => "GitLab backup: everything is in the repository",
                    Stage::Finish => "GitLab backup: what follows a complete run",
                },
                members: Text::names(self.plan.members(*stage)),
                window: (*stage == Stage::Window).then(|| Text::names([Unit::Window])),
            }
            .render(),
            Unit::Restore(unit) => self.restore(*unit),
            Unit::Silence | Unit::UnsilenceTimer | Unit::Unsilence | Unit::ReportStart | Unit::Report => self.monitoring(unit),
            step => self.step(step).render(),
        }
    }

    /// The steps of the stages, one arm for each.
    fn step(&self, unit: &Unit) -> StepService {
        let config = self.config;
        let base = StepService::base();
        let after = |units: Vec<Unit>| Text::names([vec![Unit::Staging], units].concat());
        match unit {
            Unit::Preflight => StepService {
                description: Text::plain("GitLab backup: check everything before GitLab is touched"),
                exec: self.helper(&["preflight"]),
                credentials: self.credentials(true, false, true),
                environment_file: self.repository_environment(),
                mounts: self.repository_path(),
                sandbox: Some(Sandbox {
                    network: true,
                    foreign: true,
                    writable: self.repository_writable(),
                    // Connects where only GitLab may.
                    ..Sandbox::new("CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE")
                }),
                ..base
            },
            Unit::PreflightPostgresql => self.postgresql_step(StepService {
                description: Text::plain("GitLab backup: check PostgreSQL before GitLab is touched"),
                exec: self.helper(&["preflight-postgresql"]),
                ..base
            }),
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
                    network: true,
                    foreign: true,
                    // The socket and dump.rdb belong to Redis.
                    ..Sandbox::new("CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH")
                }),
                ..base
            },
            Unit::FilesLive => {
                let window = StepService {
                    description: Text::plain("GitLab backup: file backup, GitLab is down"),
                    after: after(vec![Unit::Window]),
                    binds_to: Text::names([Unit::Window, Unit::Run]),
                    timeout: Text::plain(config.gitlab.max_downtime),
                    ..base
                };
                match &config.files {
                    Files { command: Some(command), .. } => {
                        StepService { exec: Text::command(command), staging: Some(Text::plain("steps/files")), ..window }
                    }
                    _ => StepService { exec: self.helper(&["files-live"]), ..self.repository_step(window) },
                }
            }
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
                self.postgresql_step(dump)
            }
            Unit::Files => StepService {
                description: Text::plain("GitLab backup: put the dumps into the repository"),
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
                ..self.repository_step(base)
            },
            Unit::Step(name) => match config.steps.iter().find(|step| step.name == *name) {
                Some(step) => self.own_step(step, base),
                None => base,
            },
            // Everything else has a template of its own.
            _ => base,
        }
    }

    /// A `[[step]]` of the configuration: an outside program with the rights that its user has, and no sandbox that could break it.
    fn own_step(&self, step: &Step, base: StepService) -> StepService {
        let (before, binds_to) = match step.stage {
            Stage::Prepare => (self.plan.preflights(), vec![Unit::Run]),
            Stage::Window => (vec![Unit::Window], vec![Unit::Window, Unit::Run]),
            Stage::Store => (self.config.postgresql.iter().map(|_| Unit::Postgresql).collect(), vec![Unit::Run]),
            Stage::Finish => (self.plan.prune().into_iter().collect(), vec![Unit::Run]),
        };
        // The window is bound to, not required: a requirement would be the weaker of the two. What follows a complete run does so even if
        // old runs could not be removed.
        let required = if matches!(step.stage, Stage::Window | Stage::Finish) { vec![] } else { before.clone() };
        StepService {
            description: Text::prose(step.description.as_deref().unwrap_or(&step.name)),
            exec: Text::command(&step.command),
            after: Text::names([vec![Unit::Staging], before].concat()),
            requires: Text::names([vec![Unit::Staging], required].concat()),
            binds_to: Text::names(binds_to),
            user: step.user.as_ref().map(|user| Text::names([user])),
            timeout: Text::plain(step.timeout),
            staging: Some(Text::plain(format!("steps/{}", step.name))),
            idle: step.stage != Stage::Window,
            ..base
        }
    }

    /// The members of `stage` that come before `unit`.
    fn before(&self, stage: Stage, unit: &Unit) -> Vec<Unit> {
        self.plan.members(stage).into_iter().take_while(|member| member != unit).collect()
    }

    /// A step that talks to PostgreSQL, as the user that may.
    fn postgresql_step(&self, base: StepService) -> StepService {
        StepService {
            user: self.config.postgresql.as_ref().map(|postgresql| Text::names([&postgresql.os_user])),
            // The configuration comes as a credential too: its reader here is not root.
            credentials: [
                vec![Text::path(&format!("{}:{}", credential::CONFIG, self.config.source.to_string_lossy()))],
                self.credentials(false, true, false),
            ]
            .concat(),
            sandbox: Some(Sandbox { network: true, foreign: true, ..Sandbox::new("") }),
            ..base
        }
    }

    /// A step that reads everything and writes the repository.
    fn repository_step(&self, base: StepService) -> StepService {
        StepService {
            credentials: self.credentials(true, false, false),
            environment_file: self.repository_environment(),
            staging: Some(Text::plain("parts")),
            mounts: self.repository_path(),
            sandbox: Some(Sandbox {
                network: self.repository_path().is_none(),
                foreign: true,
                writable: self.repository_writable(),
                ..Sandbox::new("CAP_DAC_READ_SEARCH")
            }),
            ..base
        }
    }

    /// The repository's directory, if it is one.
    fn repository_path(&self) -> Option<Text> {
        let location = Path::new(&self.config.repository.location);
        location.is_absolute().then(|| Text::paths([location]))
    }

    /// The repository, and where its key is kept for the run. With `-`: that one is missing is for preflight to say, in words, and not for
    /// the unit's start.
    fn repository_writable(&self) -> Option<Text> {
        let location = &self.config.repository.location;
        let runtime = format!("-{}", paths::RUNTIME);
        let local = Path::new(location).is_absolute().then(|| format!("-{location}"));
        Some(Text::paths(local.iter().chain([&runtime]).map(Path::new)))
    }

    fn repository_environment(&self) -> Option<Text> {
        self.config.repository.environment_file.as_ref().map(|path| Text::path(&path.to_string_lossy()))
    }

    /// `LoadCredential=` of the secrets that a unit needs: the service manager reads the files, so the unit's user need not.
    fn credentials(&self, repository: bool, postgresql: bool, redis: bool) -> Vec<Text> {
        let mut wanted: Vec<(String, &SecretSource)> = Vec::new();
        if repository {
            wanted.push((credential::REPOSITORY.to_owned(), &self.config.repository.password));
        }
        if let Some(Postgresql { password: Some(password), .. }) = self.config.postgresql.as_ref().filter(|_| postgresql) {
            wanted.push((credential::POSTGRESQL.to_owned(), password));
        }
        for instance in self.config.redis.iter().filter(|_| redis) {
            wanted.extend(instance.password.as_ref().map(|password| (credential::redis(&instance.name), password)));
        }
        wanted.into_iter().map(|(id, source)| credential_line(&id, source)).collect()
    }

    /// What the executor has started along with it.
    fn wanted(&self) -> Option<Text> {
        let units: Vec<Unit> = [self.plan.silence(), self.plan.report_start()].into_iter().flatten().collect();
        (!units.is_empty()).then(|| Text::names(units))
    }
}

/// `LoadCredential=` of one secret.
fn credential_line(id: &str, source: &SecretSource) -> Text {
    match source {
        SecretSource::File(path) => Text::path(&format!("{id}:{}", path.to_string_lossy())),
        SecretSource::Credential(name) => Text::path(&format!("{id}:{name}")),
    }
}

/// The names under which units see their secrets.
pub mod credential {
    /// The repository's password.
    pub const REPOSITORY: &str = "repository.password";
    /// The configuration, for helpers that do not run as root.
    pub const CONFIG: &str = "config.toml";
    /// What a restore will do, likewise.
    pub const RESTORE_PLAN: &str = "restore-plan.json";
    /// PostgreSQL's password.
    pub const POSTGRESQL: &str = "postgresql.password";

    /// The password of the Redis instance `name`.
    pub fn redis(name: &str) -> String {
        format!("redis-{name}.password")
    }
}
