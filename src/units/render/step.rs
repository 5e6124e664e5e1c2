//! The template of steps, and the settings that several steps share.

use std::path::{Path, PathBuf};

use askama::Template;

use crate::config::{EngineName, Method, ReadinessUrl, Stage};
use crate::paths;
use crate::units::Unit;
use crate::units::text::Text;
use crate::values::Timespan;

use super::{Renderer, Sandbox, credential};

/// For mount(2) and ioctl(2), for directories beside GitLab's, and for lvm, which locks its memory
/// and raises its priority.
const SNAPSHOTS: &str = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER \
                         CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SYS_RESOURCE CAP_SYS_RAWIO";

/// For directories beside GitLab's, in directories of other users.
const BESIDE: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER";

/// The unit of a step.
#[derive(Template)]
#[template(path = "step.service")]
pub struct StepService {
    /// Comments for the reader of the unit file.
    pub notes: Vec<Text>,
    pub description: Text,
    pub exec: Text,
    /// For a bracket: the command that undoes the start when the unit is stopped.
    pub end: Option<Text>,
    /// `oneshot` or `notify`.
    pub kind: &'static str,
    pub after: Text,
    pub requires: Text,
    pub binds_to: Text,
    pub user: Option<Text>,
    pub timeout: Text,
    /// `TimeoutStopSec=`; `None` for systemd's default.
    pub stop_timeout: Option<Text>,
    /// Seconds between attempts; `None`: no further attempt after a failure.
    pub retry: Option<u32>,
    pub credentials: Vec<Text>,
    /// The unit's directory below the staging directory.
    pub staging: Option<Text>,
    /// `RequiresMountsFor=`.
    pub mounts: Option<Text>,
    pub runtime: bool,
    /// Whether it runs with low CPU and I/O priority.
    pub idle: bool,
    /// A configured program. It must not send notifications to systemd, for example to extend its
    /// time limit.
    pub outside: bool,
    pub sandbox: Option<Sandbox>,
}

impl StepService {
    pub fn base() -> Self {
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

    /// The step, ordered after `others`.
    pub fn after(self, others: impl IntoIterator<Item = Unit>) -> Self {
        let after = Text::names([Unit::Staging].into_iter().chain(others));
        Self { after, ..self }
    }

    /// The step, ordered after `others` and requiring them.
    pub fn requiring(self, others: Vec<Unit>) -> Self {
        let requires = Text::names([Unit::Staging].into_iter().chain(others.clone()));
        Self { requires, ..self.after(others) }
    }
}

impl Renderer<'_> {
    /// The configured capture method of each path, as comments. 'gitlab-backup check' shows what
    /// "auto" means on the host.
    pub fn methods(&self) -> Vec<Text> {
        let files = &self.config.files;
        files
            .paths
            .iter()
            .map(|path| {
                Text::prose(&format!("{}: snapshot = \"{}\"", path.display(), files.method(path)))
            })
            .collect()
    }

    /// The sandbox of steps that create, mount and remove snapshots with the tools of the file
    /// systems. Without such file systems, it only allows directories for clones beside GitLab's.
    pub fn snapshots(&self) -> Sandbox {
        if self.config.files.volumes {
            return Sandbox { mounts: true, foreign: true, ..self.sandbox(SNAPSHOTS) };
        }
        let beside = if self.clones() { self.top_directories() } else { Vec::new() };
        let writable = self.writable(
            [PathBuf::from(paths::RUNTIME), PathBuf::from(paths::STATE)].into_iter().chain(beside),
        );
        Sandbox { foreign: true, home: true, bus: false, writable, ..self.sandbox(BESIDE) }
    }

    /// Whether a path may be captured by clones.
    pub fn clones(&self) -> bool {
        let files = &self.config.files;
        let may = |method: Method| matches!(method, Method::Auto | Method::Reflink);
        self.config.repository.engine == EngineName::Builtin
            && files.paths.iter().any(|path| may(files.method(path)))
    }

    /// The members of `stage` that come before `unit`.
    pub fn before(&self, stage: Stage, unit: &Unit) -> Vec<Unit> {
        self.plan.members(stage).into_iter().take_while(|member| member != unit).collect()
    }

    /// A step that connects to PostgreSQL, and runs as its OS user.
    pub fn postgresql_step(&self, base: StepService) -> StepService {
        StepService {
            user: self
                .config
                .postgresql
                .as_ref()
                .map(|postgresql| Text::names([&postgresql.os_user])),
            // The configuration is a credential too, because this user may not be able to read it.
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

    /// A step that can read all files and write the repository.
    pub fn repository_step(&self, base: StepService) -> StepService {
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

    /// The repository's directory; `None` for a remote repository.
    pub fn repository_path(&self) -> Option<Text> {
        self.config.repository.directory().map(|directory| Text::paths([directory]))
    }

    /// `ReadWritePaths=` with [`Self::repository_paths`].
    pub fn repository_writable(&self) -> Option<Text> {
        self.writable(self.repository_paths())
    }

    /// The repository's directory, and the directory that holds its key during a run.
    pub fn repository_paths(&self) -> Vec<PathBuf> {
        let local = self.config.repository.directory().map(Path::to_owned);
        local.into_iter().chain([PathBuf::from(paths::RUNTIME)]).collect()
    }

    pub fn readiness_by_network(&self) -> bool {
        matches!(self.config.gitlab.readiness, Some(ReadinessUrl::Http(_)))
    }
}
