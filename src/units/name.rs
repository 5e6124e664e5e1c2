//! The names of our units: the only place that spells them.

use std::fmt;

use crate::config::{Proxy, Stage};

/// One of our units.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Starts the target by the clock.
    Timer,
    /// Before the timers: a calendar that was changed starts nothing for what has gone by.
    Calendar,
    /// The entry: what the timer and the admin start.
    Target,
    /// The executor. Not `gitlab-backup.service`: NixOS and Arch have a unit of that name.
    Run,
    /// Bracket, whole run: the staging area is there and is removed.
    Staging,
    /// Step: everything that can be known before GitLab is touched.
    Preflight,
    /// The part of preflight that PostgreSQL answers only to its own user.
    PreflightPostgresql,
    /// Step: how each path of the files is captured; what a crash left of that goes.
    FsPlan,
    /// Step: first pass of the file backup with GitLab up.
    Presync,
    /// Bracket: owns the promise that GitLab comes back.
    Pause,
    /// Bracket: GitLab is down.
    Window,
    /// Guard: the longest downtime allowed.
    DeadlineTimer,
    /// What the guard starts: nothing but a conflict with the window.
    DeadlineTarget,
    /// Bracket: holds an exported snapshot of every database.
    PgSnapshot,
    /// Bracket: the file systems' snapshots.
    FsSnapshot,
    /// Ready at the fork; ends when every file is secured.
    Redis,
    /// Step in the window: where there are no snapshots, what changed since the first pass.
    FilesLive,
    /// Step: starts again what was running.
    Resume,
    /// Step: the dumps, from the held snapshots.
    Postgresql,
    /// Step: puts the files and the dumps into the repository.
    Files,
    /// Step: makes the run complete.
    Manifest,
    /// Step: retention, after a complete run.
    Prune,
    /// Verifies the newest run; no part of any.
    Verify,
    /// Starts that by the clock.
    VerifyTimer,
    /// Bracket, whole run: the monitoring is told.
    Silence,
    /// Step: the silences last long enough and have taken effect.
    Silenced,
    /// When the silences of a run that is over end.
    UnsilenceTimer,
    /// Ends them.
    Unsilence,
    /// Tells that a run has begun.
    ReportStart,
    /// Tells how a run went.
    Report,
    /// All units of one stage.
    Stage(Stage),
    /// In place of a `[[gitlab.proxy]]`, by its name.
    Proxy(String),
    /// Step: the proxies are brought in accord with their services.
    Proxies,
    /// Step in the window, the last: no proxied service was started meanwhile.
    ProxiesDown,
    /// A `[[step]]`, by its name.
    Step(String),
    /// One of a restore.
    Restore(Restore),
}

/// The units of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Restore {
    /// The entry: what `gitlab-backup restore` starts.
    Target,
    /// The executor.
    Run,
    /// Bracket, whole restore: what is laid out goes, unless it took its place.
    Staging,
    /// Step: everything that can be known before GitLab is touched.
    Preflight,
    /// Bracket: GitLab comes back, unless it is half old and half new.
    Pause,
    /// Bracket: GitLab is down.
    Window,
    /// All that happens in the window.
    Apply,
    /// Step: what an unfinished restore has replaced is put back.
    Undo,
    /// Step: the dumps are laid out.
    Dumps,
    /// Step: the dumps are loaded beside the old databases.
    Postgresql,
    /// Step: the files are laid out beside the old ones.
    Files,
    /// Step: no proxied service was started meanwhile.
    ProxiesDown,
    /// Step: the new takes the place of the old.
    Switch,
    /// Step: the old goes.
    Finish,
    /// At boot: a half restored GitLab is not started.
    Guard,
    /// The same for what something else than systemd starts.
    KeepDown,
}

impl Restore {
    /// What happens in the window, in an order in which every unit comes after those it is ordered
    /// after.
    pub const APPLY: [Self; 6] =
        [Self::Undo, Self::Dumps, Self::Postgresql, Self::Files, Self::ProxiesDown, Self::Switch];

    fn rest(self) -> &'static str {
        match self {
            Self::Target => ".target",
            Self::Run => "-run.service",
            Self::Staging => "-staging.service",
            Self::Preflight => "-preflight.service",
            Self::Pause => "-pause.service",
            Self::Window => "-window.service",
            Self::Apply => "-apply.target",
            Self::Undo => "-undo.service",
            Self::Dumps => "-dumps.service",
            Self::Postgresql => "-postgresql.service",
            Self::Files => "-files.service",
            Self::ProxiesDown => "-proxies-down.service",
            Self::Switch => "-switch.service",
            Self::Finish => "-finish.service",
            Self::Guard => "-guard.service",
            Self::KeepDown => "-keep-down.service",
        }
    }
}

impl From<Restore> for Unit {
    fn from(unit: Restore) -> Self {
        Self::Restore(unit)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = match self {
            Self::Timer => "-run.timer",
            Self::Calendar => "-calendar.service",
            Self::Target => ".target",
            Self::Run => "-run.service",
            Self::Staging => "-staging.service",
            Self::Preflight => "-preflight.service",
            Self::PreflightPostgresql => "-preflight-postgresql.service",
            Self::FsPlan => "-fsplan.service",
            Self::Presync => "-presync.service",
            Self::Pause => "-pause.service",
            Self::Window => "-window.service",
            Self::DeadlineTimer => "-deadline.timer",
            Self::DeadlineTarget => "-deadline.target",
            Self::PgSnapshot => "-pgsnapshot.service",
            Self::FsSnapshot => "-fssnapshot.service",
            Self::Redis => "-redis.service",
            Self::FilesLive => "-files-live.service",
            Self::Resume => "-resume.service",
            Self::Postgresql => "-postgresql.service",
            Self::Files => "-files.service",
            Self::Manifest => "-manifest.service",
            Self::Prune => "-prune.service",
            Self::Verify => "-verify.service",
            Self::VerifyTimer => "-verify.timer",
            Self::Silence => "-silence.service",
            Self::Silenced => "-silenced.service",
            Self::UnsilenceTimer => "-unsilence.timer",
            Self::Unsilence => "-unsilence.service",
            Self::ReportStart => "-report-start.service",
            Self::Report => "-report.service",
            Self::Stage(Stage::Prepare) => "-prepare.target",
            Self::Stage(Stage::Window) => "-capture.target",
            Self::Stage(Stage::Store) => "-store.target",
            Self::Stage(Stage::Finish) => "-finish.target",
            Self::Proxies => "-proxies.service",
            Self::ProxiesDown => "-proxies-down.service",
            Self::Proxy(name) => return write!(f, "{}{name}.service", Proxy::PREFIX),
            Self::Step(name) => return write!(f, "gitlab-backup-step-{name}.service"),
            Self::Restore(unit) => return write!(f, "gitlab-backup-restore{}", unit.rest()),
        };
        write!(f, "gitlab-backup{rest}")
    }
}
