//! Reports how a run went, whatever its outcome. systemd starts this when the executor has ended.
//! Unreachable receivers are retried for a quarter of an hour; nothing waits for them.

use anyhow::{Result, bail};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, sleep};

use crate::config::Config;
use crate::machine::Base;
use crate::monitoring::{Report, ReportConfig, retry_unreachable};
use crate::paths::{self, RootDirectory};
use crate::run::unstarted;
use crate::runs::record::{read_json, write_json};
use crate::runs::{Kind, Outcome, Record};
use crate::systemd::ServiceManager;
use crate::units::Unit;
use crate::values::RunId;

/// The pause before each further attempt.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(240),
    Duration::from_secs(600),
];
/// Lines of the journal that a report contains.
const LOG_LINES: usize = 30;

/// Which reports were delivered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Delivery {
    /// The run whose end was reported last.
    run: Option<RunId>,
    /// The last report was about a run after `run`, which never started.
    not_started: bool,
    /// The receivers that the last report has not reached yet.
    pending: Vec<String>,
}

impl Delivery {
    fn load(root: &RootDirectory) -> Result<Self> {
        Ok(read_json(&root.at(paths::REPORTED))?.unwrap_or_default())
    }

    fn save(&self, root: &RootDirectory) -> Result<()> {
        write_json(&root.at(paths::REPORTED), self)
    }

    /// Begins a new report, of which no receiver has been notified: about the end of `run`, or
    /// without one about a run that never started.
    fn restart(&mut self, config: &Config, root: &RootDirectory, run: Option<RunId>) -> Result<()> {
        self.not_started = run.is_none();
        self.run = run.or(self.run.take());
        let receivers = config.monitoring.reports.iter();
        self.pending = receivers.map(|report| report.system().name().to_owned()).collect();
        self.save(root)
    }
}

/// Reports to every receiver that a run has started. A failure is logged and otherwise ignored.
pub async fn report_start(config: &Config) {
    let notify = |report: &ReportConfig| {
        let report = report.clone();
        async move {
            let system = report.system();
            if let Err(error) = retry_unreachable(|| system.started()).await {
                tracing::warn!(report = system.name(), "{error:#}");
            }
        }
    };
    join_all(config.monitoring.reports.iter().map(notify)).await;
}

/// Reports the run that ended last. If that has been reported already, the report is about a run
/// that systemd could not start.
pub async fn report_end<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFn() -> Result<M>,
) -> Result<()> {
    let root = base.root;
    let mut delivery = Delivery::load(root)?;
    match unreported(&delivery, root)? {
        Some(run) => delivery.restart(config, root, Some(run))?,
        None if delivery.pending.is_empty() => delivery.restart(config, root, None)?,
        None => tracing::info!("continuing the report of an earlier attempt"),
    }
    let mut pauses = PAUSES.into_iter();
    loop {
        let report = compose(&delivery, base, &connect).await?;
        deliver(config, &report, &mut delivery, root).await?;
        // Another run may have ended in the meantime. systemd does not start a service twice, so
        // this process has to report that run as well.
        if let Some(run) = unreported(&delivery, root)? {
            delivery.restart(config, root, Some(run))?;
            pauses = PAUSES.into_iter();
            continue;
        }
        match (delivery.pending.is_empty(), pauses.next()) {
            (true, _) => return Ok(()),
            (false, Some(pause)) => sleep(pause).await,
            (false, None) => bail!("not delivered to: {}", delivery.pending.join(", ")),
        }
    }
}

/// The run that ended last, if it is not the one that was reported last.
fn unreported(delivery: &Delivery, root: &RootDirectory) -> Result<Option<RunId>> {
    let ended = Record::current(root)?.filter(|record| record.finished.is_some());
    Ok(ended.map(|record| record.id).filter(|run| delivery.run.as_ref() != Some(run)))
}

/// The report about the run that `delivery` is about.
async fn compose<M: ServiceManager>(
    delivery: &Delivery,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<Report> {
    let Base { clock, journal, root } = base;
    let unit = Unit::Run.to_string();
    let records = Record::all(root, clock.now())?;
    let last_complete = records
        .iter()
        .find(|record| record.outcome == Outcome::Complete)
        .and_then(|record| record.finished);
    let reported = records
        .iter()
        .find(|record| Some(&record.id) == delivery.run.as_ref() && !delivery.not_started);
    if let Some(record) = reported {
        let log = journal.last_lines(&unit, record.started, LOG_LINES).await;
        return Ok(Report::of(record, log, last_complete, clock.now()));
    }
    // One of the units before the executor failed, and the executor did not start.
    let since = records.first().and_then(|record| record.finished).unwrap_or(Timestamp::UNIX_EPOCH);
    let log = journal.last_lines("gitlab-backup*", since, LOG_LINES).await;
    let manager = connect().await?;
    let failed = unstarted(&manager, journal, Kind::Backup, records.first()).await?;
    let (unit, reason) = failed.map_or((unit, None), |failed| (failed.unit, Some(failed.reason)));
    Ok(Report::not_started(&unit, reason, log, last_complete, clock.now()))
}

/// Sends the report to all pending receivers, at the same time, and records which are still
/// pending.
async fn deliver(
    config: &Config,
    report: &Report,
    delivery: &mut Delivery,
    root: &RootDirectory,
) -> Result<()> {
    let systems = config.monitoring.reports.iter().map(ReportConfig::system);
    let pending =
        systems.filter(|system| delivery.pending.iter().any(|name| name == system.name()));
    let results = join_all(pending.map(|system| async move {
        (system.name(), retry_unreachable(|| system.ended(report)).await)
    }))
    .await;
    delivery.pending.clear();
    for (name, result) in results {
        match result {
            Ok(()) => tracing::info!(report = name, success = report.success, "delivered"),
            Err(error) => {
                tracing::warn!(report = name, "{error:#}");
                delivery.pending.push(name.to_owned());
            }
        }
    }
    delivery.save(root)
}
