//! Word of how a run went, however it went. Started by systemd when the executor is gone; holds up
//! nobody, tries for a quarter of an hour.

use std::path::Path;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, sleep};

use crate::config::Config;
use crate::config::monitoring::ReportConfig;
use crate::monitoring::{Report, patiently, reporter};
use crate::paths::{self, RootDirectory};
use crate::run::unstarted;
use crate::runs::record::{read_json, write_json};
use crate::runs::{Kind, Outcome, Record};
use crate::systemd::{Manager, last_lines};
use crate::units::Unit;
use crate::values::RunId;

/// Before each further attempt.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(240),
    Duration::from_secs(600),
];
/// Lines of the journal that go with a report.
const LOG_LINES: usize = 30;

/// Who was told what.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Notified {
    /// The last run that was reported.
    run: Option<RunId>,
    /// It was the next one, which never started, that was reported last.
    not_started: bool,
    /// Who has not heard of it yet.
    pending: Vec<String>,
}

impl Notified {
    fn load() -> Result<Self> {
        Ok(read_json(Path::new(paths::TOLD))?.unwrap_or_default())
    }

    fn save(&self) -> Result<()> {
        write_json(Path::new(paths::TOLD), self)
    }
}

/// A run has begun. Nothing depends on whether anybody hears it.
pub async fn begun(config: &Config) -> Result<()> {
    let tell = |to: &'_ ReportConfig| {
        let to = to.clone();
        async move {
            if let Err(error) = patiently(|| async { reporter(&to).begun().await }).await {
                tracing::warn!(report = to.name(), "{error:#}");
            }
        }
    };
    join_all(config.monitoring.reports.iter().map(tell)).await;
    Ok(())
}

/// The run that ended last; or, if everybody knows of that already, one that systemd could not even
/// start.
pub async fn ended(config: &Config) -> Result<()> {
    let mut told = Notified::load()?;
    match finished()? {
        Some(run) if told.run.as_ref() != Some(&run.id) => anew(config, &mut told, Some(run.id))?,
        _ if told.pending.is_empty() => anew(config, &mut told, None)?,
        _ => tracing::info!("going on with the report of an earlier attempt"),
    }
    let mut pauses = PAUSES.into_iter();
    loop {
        let report = report(&told).await?;
        tell(config, &report, &mut told).await?;
        // Another run may have ended meanwhile, and systemd does not start twice what is at work.
        if let Some(run) = finished()?.filter(|run| told.run.as_ref() != Some(&run.id)) {
            anew(config, &mut told, Some(run.id))?;
            pauses = PAUSES.into_iter();
            continue;
        }
        match (told.pending.is_empty(), pauses.next()) {
            (true, _) => return Ok(()),
            (false, Some(pause)) => sleep(pause).await,
            (false, None) => bail!("never heard of the run: {}", told.pending.join(", ")),
        }
    }
}

fn finished() -> Result<Option<Record>> {
    Ok(Record::current(&RootDirectory::host())?.filter(|record| record.finished.is_some()))
}

fn anew(config: &Config, told: &mut Notified, run: Option<RunId>) -> Result<()> {
    told.not_started = run.is_none();
    told.run = run.or(told.run.take());
    told.pending =
        config.monitoring.reports.iter().map(|report| report.name().to_owned()).collect();
    told.save()
}

async fn report(told: &Notified) -> Result<Report> {
    let unit = Unit::Run.to_string();
    let records = Record::all(&RootDirectory::host())?;
    let last_complete = records
        .iter()
        .find(|record| record.outcome == Outcome::Complete)
        .and_then(|record| record.finished);
    let record =
        records.iter().find(|record| Some(&record.id) == told.run.as_ref() && !told.not_started);
    match record {
        Some(record) => Ok(Report::of(
            record,
            last_lines(&unit, record.started, LOG_LINES).await,
            last_complete,
        )),
        None => {
            // What kept the executor from starting is one of the units before it.
            let since =
                records.first().and_then(|record| record.finished).unwrap_or(Timestamp::UNIX_EPOCH);
            let log = last_lines("gitlab-backup*", since, LOG_LINES).await;
            let why = unstarted(&Manager::connect().await?, Kind::Backup, records.first()).await?;
            Ok(match why {
                Some(why) => Report::not_started(&why.unit, Some(why.reason), log, last_complete),
                None => Report::not_started(&unit, None, log, last_complete),
            })
        }
    }
}

/// Tells everybody who is pending, all at once.
async fn tell(config: &Config, report: &Report, told: &mut Notified) -> Result<()> {
    let pending: Vec<&ReportConfig> = config
        .monitoring
        .reports
        .iter()
        .filter(|to| told.pending.iter().any(|name| name == to.name()))
        .collect();
    let results = join_all(pending.iter().map(|to| async move {
        (to.name(), patiently(|| async { reporter(to).ended(report).await }).await)
    }))
    .await;
    told.pending.clear();
    for (name, result) in results {
        match result {
            Ok(()) => tracing::info!(report = name, success = report.success, "told"),
            Err(error) => {
                tracing::warn!(report = name, "{error:#}");
                told.pending.push(name.to_owned());
            }
        }
    }
    told.save()
}
