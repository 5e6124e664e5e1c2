//! Maps each unit to its row. A unit without a row does not compile.

use std::fmt;

use super::row::Row;
use super::rows::{capture, deadline, entry, monitoring, prepare, proxies, restore, stages};
use super::rows::{step, store, verify};
use super::{Restore, Unit};
use crate::config::Stage;

impl Unit {
    /// All that is said of it.
    pub(super) fn row(&self) -> &'static Row {
        match self {
            Self::Timer => &entry::TIMER,
            Self::Calendar => &entry::CALENDAR,
            Self::Target => &entry::TARGET,
            Self::Run => &entry::RUN,
            Self::Staging => &entry::STAGING,
            Self::Silence => &monitoring::SILENCE,
            Self::Silenced => &monitoring::SILENCED,
            Self::UnsilenceTimer => &monitoring::UNSILENCE_TIMER,
            Self::Unsilence => &monitoring::UNSILENCE,
            Self::ReportStart => &monitoring::REPORT_START,
            Self::Report => &monitoring::REPORT,
            Self::Preflight => &prepare::PREFLIGHT,
            Self::PreflightPostgresql => &prepare::PREFLIGHT_POSTGRESQL,
            Self::FsPlan => &prepare::FSPLAN,
            Self::Presync => &prepare::PRESYNC,
            Self::Pause => &capture::PAUSE,
            Self::Window => &capture::WINDOW,
            Self::DeadlineTimer => &deadline::TIMER,
            Self::DeadlineTarget => &deadline::TARGET,
            Self::PgSnapshot => &capture::PGSNAPSHOT,
            Self::Redis => &capture::REDIS,
            Self::FsSnapshot => &capture::FSSNAPSHOT,
            Self::FilesLive => &capture::FILES_LIVE,
            Self::Resume => &capture::RESUME,
            Self::Postgresql => &store::POSTGRESQL,
            Self::Files => &store::FILES,
            Self::Manifest => &store::MANIFEST,
            Self::Prune => &store::PRUNE,
            Self::Verify => &verify::SERVICE,
            Self::VerifyTimer => &verify::TIMER,
            Self::Proxies => &proxies::PROXIES,
            Self::ProxiesDown => &proxies::DOWN,
            Self::Proxy(_) => &proxies::PROXY,
            Self::Step(_) => &step::STEP,
            Self::Stage(Stage::Prepare) => &stages::PREPARE,
            Self::Stage(Stage::Window) => &stages::CAPTURE,
            Self::Stage(Stage::Store) => &stages::STORE,
            Self::Stage(Stage::Finish) => &stages::FINISH,
            Self::Restore(unit) => unit.row(),
        }
    }
}

impl Restore {
    /// All that is said of it.
    pub(super) fn row(self) -> &'static Row {
        match self {
            Self::Target => &restore::entry::TARGET,
            Self::Run => &restore::entry::RUN,
            Self::Staging => &restore::entry::STAGING,
            Self::Preflight => &restore::entry::PREFLIGHT,
            Self::Apply => &restore::window::APPLY,
            Self::Pause => &restore::window::PAUSE,
            Self::Window => &restore::window::WINDOW,
            Self::Undo => &restore::replace::UNDO,
            Self::Dumps => &restore::extract::DUMPS,
            Self::Postgresql => &restore::extract::POSTGRESQL,
            Self::Files => &restore::extract::FILES,
            Self::ProxiesDown => &restore::replace::PROXIES_DOWN,
            Self::Switch => &restore::replace::SWITCH,
            Self::Finish => &restore::replace::FINISH,
            Self::Guard => &restore::guard::GUARD,
            Self::KeepDown => &restore::guard::KEEP_DOWN,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.row().name;
        match self {
            Self::Step(given) | Self::Proxy(given) => f.write_str(&name.replace("{}", given)),
            _ => f.write_str(name),
        }
    }
}
