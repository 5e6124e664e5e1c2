//! The silence bracket: the monitoring is told before anything else of a run and after everything
//! else. What is begun is on record before it is asked for, so that whatever dies, somebody ends
//! it: the end of the bracket, the next run, or the next boot.

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::config::Config;
use crate::config::monitoring::{Monitoring, OnError};
use crate::monitoring::held::{Entry, Held};
use crate::monitoring::{Span, patiently, silence};
use crate::paths::RootDirectory;
use crate::runs::{Outcome, Record};
use crate::systemd::{Manager, ServiceManager, notify, start_later};
use crate::units::{Restore, Unit};

/// What a silence lasts beyond the downtime and the grace period that it is for, should nobody end
/// it.
const SLACK: SignedDuration = SignedDuration::from_mins(30);
/// Between two looks whether silences have taken effect.
const PAUSE: Duration = Duration::from_secs(2);
/// For how long the end waits to hear whether a run goes on: at a shutdown nobody may answer.
const BUS: Duration = Duration::from_secs(5);
/// For how long one that cannot be ended is tried again.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(24);

/// Begins every configured silence, and ends those that an earlier run left and this configuration
/// no longer has. Fails only if the record cannot be kept; a system that cannot be reached is on
/// record for the executor to judge.
pub async fn begin(config: &Config) -> Result<()> {
    let earlier = Held::load()?.map(|held| held.silences).unwrap_or_default();
    let mut entries: Vec<Entry> = Vec::new();
    for silence in &config.monitoring.silences {
        let known = earlier.iter().find(|entry| entry.silence == *silence);
        let new = || Entry { silence: silence.clone(), id: None, begun: false, error: None };
        entries.push(known.cloned().unwrap_or_else(new));
    }
    let leftover: Vec<Entry> = earlier
        .into_iter()
        .filter(|entry| !config.monitoring.silences.contains(&entry.silence))
        .collect();
    let mut held = held(config, entries);
    held.silences.extend(leftover.iter().cloned());
    held.save()?;
    let over = join_all(leftover.iter().map(ended)).await;
    for (entry, _) in leftover.iter().zip(over).filter(|(_, over)| *over) {
        held.silences.retain(|other| other.silence != entry.silence);
    }
    ask(config, &mut held).await?;
    notify::status("the monitoring is told");
    Ok(())
}

/// Why the run must not go on, if it must not.
pub fn forbids(config: &Config) -> Result<Option<String>> {
    let complaints = complaints(config)?;
    let forbidden = config.monitoring.on_error == OnError::Abort && !complaints.is_empty();
    Ok(forbidden.then(|| format!("{} ([monitoring] on-error = \"abort\")", complaints.join("; "))))
}

/// Which of the configured silences the run does not have.
pub fn complaints(config: &Config) -> Result<Vec<String>> {
    if config.monitoring.silences.is_empty() {
        return Ok(Vec::new());
    }
    match Held::load()? {
        Some(held) => Ok(held.complaints()),
        None => Ok(vec![format!(
            "the monitoring was not told: {} failed (are its token files there?)",
            Unit::Silence
        )]),
    }
}

/// Last of all that happens before the window: has each silence last until after the window, and
/// waits, for a while, until all have taken effect.
pub async fn settle(config: &Config) -> Result<()> {
    let monitoring = &config.monitoring;
    let mut held = match Held::load()? {
        Some(held) => held,
        None => held(
            config,
            monitoring
                .silences
                .iter()
                .map(|silence| Entry {
                    silence: silence.clone(),
                    id: None,
                    begun: false,
                    error: None,
                })
                .collect(),
        ),
    };
    let needed = Timestamp::now() + needed(config);
    // Whoever ends the silences then waits for the end of the run.
    if !Manager::connect().await?.state(&Unit::Silence.to_string()).await?.active.is_running() {
        held.over = None;
        held.save()?;
        start_later(&Unit::UnsilenceTimer.to_string()).await?;
    }
    let missing = held.silences.iter().any(|entry| entry.error.is_some() || !entry.begun);
    if missing || held.until < needed {
        held.until = needed + SLACK;
        held.begun = Timestamp::now();
        ask(config, &mut held).await?;
    }
    if let Some(reason) = forbids(config)? {
        bail!("{reason}");
    }
    let since = held.begun;
    let waited = || Timestamp::now().duration_since(since).unsigned_abs();
    let mut waiting: Vec<&Entry> =
        held.silences.iter().filter(|entry| entry.error.is_none()).collect();
    let started = Instant::now();
    let wait = monitoring.wait.duration();
    loop {
        let mut next = Vec::new();
        for entry in waiting {
            match silence(&entry.silence).in_effect().await {
                Ok(true) => {
                    tracing::info!(silence = entry.silence.name(), after = ?waited(), "in effect")
                }
                Ok(false) => next.push(entry),
                Err(error) => {
                    tracing::debug!(silence = entry.silence.name(), "{error:#}");
                    next.push(entry);
                }
            }
        }
        waiting = next;
        // By both clocks: the one on the wall may be set meanwhile.
        if waiting.is_empty() || waited() >= wait || started.elapsed() >= wait {
            break;
        }
        notify::status(&format!("waiting until {} is silent", names(&waiting)));
        sleep(PAUSE).await;
    }
    let late: Vec<String> = waiting
        .iter()
        .map(|entry| format!("{}: not in effect after {}", entry.silence.name(), monitoring.wait))
        .collect();
    for line in &late {
        tracing::warn!("{line}: the backup goes on");
    }
    held.late = late;
    held.save()
}

/// The end of the bracket. Holds up nobody: what has a grace period is left to a timer, as is what
/// could not be ended now. Reads no configuration.
pub async fn end() -> Result<()> {
    let Some(mut held) = Held::load()? else { return Ok(()) };
    // After a begin that failed, and each stage has systemd try that again, the run goes on: the
    // timer's service waits for its end.
    let early = matches!(timeout(BUS, goes_on()).await, Ok(Ok(Some(_))));
    if !early {
        held.over = Some(Timestamp::now());
        held.save()?;
    }
    start_later(&Unit::UnsilenceTimer.to_string()).await?;
    if early {
        return Ok(());
    }
    let (later, now): (Vec<Entry>, Vec<Entry>) =
        held.silences.into_iter().partition(|entry| silence(&entry.silence).has_grace());
    held.silences = later;
    for entry in now {
        if !ended(&entry).await {
            held.silences.push(entry);
        }
    }
    held.save()
}

/// Ends what is on record; fails, to be started again, while anything is left.
pub async fn unsilence() -> Result<()> {
    let Some(mut held) = Held::load()? else { return Ok(()) };
    // Not asked for by the end of the bracket, but by its failure, which may be at its start.
    if held.over.is_none()
        && let Some(executor) = goes_on().await?
    {
        bail!("{executor} goes on: tried again when it is over");
    }
    let over = held.over.unwrap_or(held.begun);
    let mut left = Vec::new();
    for entry in std::mem::take(&mut held.silences) {
        let result = patiently(|| silence_end(&entry)).await;
        match result {
            Ok(()) => tracing::info!(silence = entry.silence.name(), "ended"),
            // Nothing that is known of was begun: one attempt is enough.
            Err(error) if !entry.begun => tracing::info!(
                silence = entry.silence.name(),
                "was not begun, and need not be ended: {error:#}"
            ),
            Err(error) if Timestamp::now().duration_since(over) > GIVE_UP => {
                tracing::error!(
                    silence = entry.silence.name(),
                    "could not be ended for a day, given up: {error:#}"
                );
            }
            Err(error) => left.push((entry, error)),
        }
    }
    held.silences = left.iter().map(|(entry, _)| entry.clone()).collect();
    held.save()?;
    match left.is_empty() {
        true => Ok(()),
        false => {
            let all: Vec<String> = left
                .iter()
                .map(|(entry, error)| format!("{}: {error:#}", entry.silence.name()))
                .collect();
            bail!("could not be ended, and will be tried again: {}", all.join("; "))
        }
    }
}

/// The executor that is at work, of a backup or a restore.
async fn goes_on() -> Result<Option<Unit>> {
    let manager = Manager::connect().await?;
    for executor in [Unit::Run, Restore::Run.into()] {
        if !manager.state(&executor.to_string()).await?.is_settled() {
            return Ok(Some(executor));
        }
    }
    Ok(None)
}

fn held(config: &Config, silences: Vec<Entry>) -> Held {
    let begun = Timestamp::now();
    Held { begun, until: begun + needed(config) + SLACK, over: None, silences, late: Vec::new() }
}

/// How long a silence must last if the window opened now.
fn needed(config: &Config) -> SignedDuration {
    let Monitoring { grace, wait, .. } = &config.monitoring;
    let longest = config.gitlab.max_downtime.duration() + grace.duration() + wait.duration();
    SignedDuration::try_from(longest).unwrap_or(SignedDuration::from_hours(24))
}

/// Asks all of them at once, and puts on record what became of it.
async fn ask(config: &Config, held: &mut Held) -> Result<()> {
    let records = Record::all(&RootDirectory::host()).unwrap_or_default();
    let last = records.iter().find(|record| record.outcome == Outcome::Complete);
    let downtime = last.and_then(|record| record.downtime).map(|downtime| downtime.total());
    let span = Span { from: held.begun, until: held.until, downtime };
    let configured = |entry: &Entry| config.monitoring.silences.contains(&entry.silence);
    let asked = join_all(held.silences.iter().map(|entry| async {
        match configured(entry) {
            true => Some(
                patiently(|| async {
                    silence(&entry.silence).begin(&span, entry.id.as_deref()).await
                })
                .await,
            ),
            false => None,
        }
    }));
    let results = asked.await;
    for (entry, result) in held.silences.iter_mut().zip(results) {
        let name = entry.silence.name();
        match result {
            None => {}
            Some(Ok(id)) => {
                tracing::info!(silence = name, until = %held.until, "begun");
                (entry.id, entry.begun, entry.error) = (id, true, None);
            }
            Some(Err(error)) => {
                tracing::warn!(silence = name, "{error:#}");
                entry.error = Some(format!("{error:#}"));
            }
        }
    }
    held.save()
}

/// Ends one; says so if it cannot be ended now.
async fn ended(entry: &Entry) -> bool {
    match patiently(|| silence_end(entry)).await {
        Ok(()) => {
            tracing::info!(silence = entry.silence.name(), "ended");
            true
        }
        Err(error) => {
            tracing::warn!(silence = entry.silence.name(), "could not be ended yet: {error:#}");
            false
        }
    }
}

async fn silence_end(entry: &Entry) -> Result<()> {
    silence(&entry.silence).end(entry.id.as_deref()).await.with_context(|| "cannot end the silence")
}

fn names(entries: &[&Entry]) -> String {
    entries.iter().map(|entry| entry.silence.name()).collect::<Vec<_>>().join(", ")
}
