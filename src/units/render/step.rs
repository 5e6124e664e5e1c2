//! What all steps have in common.

use std::path::{Path, PathBuf};

use askama::Template;

use crate::config::{EngineName, Method, ReadinessUrl, Stage};
use crate::paths;
use crate::units::Unit;
use crate::units::text::Text;
use crate::values::Timespan;

use super::{Renderer, Sandbox, credential};

/// mount(2) and ioctl(2) ask for SYS_ADMIN; directories of ours lie beside GitLab's, and lvm locks
/// its memory and raises its priority.
const SNAPSHOTS: &str = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_IPC_LOCK CAP_SYS_NICE CAP_MKNOD CAP_SYS_RESOURCE CAP_SYS_RAWIO";

/// Directories of ours lie in those of others.
const BESIDE: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER";

/// A unit of a stage: what all steps have in common, and what makes each different.
#[derive(Template)]
#[template(path = "step.service")]
pub struct StepService {
    /// What the reader of the unit should know.
    pub notes: Vec<Text>,
    pub description: Text,
    pub exec: Text,
    /// What undoes it: the unit stays up until then.
    pub end: Option<Text>,
    /// `oneshot` or `notify`.
    pub kind: &'static str,
    pub after: Text,
    pub requires: Text,
    pub binds_to: Text,
    pub user: Option<Text>,
    pub timeout: Text,
    /// `TimeoutStopSec=`; none: systemd's own.
    pub stop_timeout: Option<Text>,
    /// Seconds between attempts; none: a failure is final at once.
    pub retry: Option<u32>,
    pub credentials: Vec<Text>,
    /// A directory of the unit's own below the staging area.
    pub staging: Option<Text>,
    /// `RequiresMountsFor=`.
    pub mounts: Option<Text>,
    pub runtime: bool,
    pub idle: bool,
    /// Not ours: it may tell systemd nothing, such as that it needs more time.
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

    /// The same, after `others`.
    pub fn after(self, others: impl IntoIterator<Item = Unit>) -> Self {
        let after = Text::names([Unit::Staging].into_iter().chain(others));
        Self { after, ..self }
    }

    /// The same, after `others`, and none without them.
    pub fn behind(self, others: Vec<Unit>) -> Self {
        let requires = Text::names([Unit::Staging].into_iter().chain(others.clone()));
        Self { requires, ..self.after(others) }
    }
}

impl Renderer<'_> {
    /// How each path is to be captured. What "auto" comes to is decided on the host: 'gitlab-backup
    /// check' tells.
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

    /// A sandbox for what makes, mounts and removes snapshots with the file systems' own tools;
    /// where there are no such file systems, for what makes and removes directories beside
    /// GitLab's.
    pub fn snapshots(&self) -> Sandbox {
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

    /// A step that talks to PostgreSQL, as the user that may.
    pub fn postgresql_step(&self, base: StepService) -> StepService {
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

    /// The repository's directory, if it is one.
    pub fn repository_path(&self) -> Option<Text> {
        self.config.repository.directory().map(|directory| Text::paths([directory]))
    }

    /// The repository, and where its key is kept for the run.
    pub fn repository_writable(&self) -> Option<Text> {
        self.writable(self.repository_paths())
    }

    /// The same, as paths.
    pub fn repository_paths(&self) -> Vec<PathBuf> {
        let local = self.config.repository.directory().map(Path::to_owned);
        local.into_iter().chain([PathBuf::from(paths::RUNTIME)]).collect()
    }

    pub fn readiness_by_network(&self) -> bool {
        matches!(self.config.gitlab.readiness, Some(ReadinessUrl::Http(_)))
    }
}
