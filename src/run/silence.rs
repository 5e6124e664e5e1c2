//! The silence bracket: the first unit of a run silences the monitoring, the last one ends the
//! silence. A silence is recorded before it is requested. Whatever crashes in between, the recorded
//! silence is ended: by the end of the bracket, by the next run, or at the next boot.

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::config::Config;
use crate::host::clock::Clock;
use crate::machine::Base;
use crate::monitoring::held::{SilenceEntry, SilenceRecord};
use crate::monitoring::{Monitoring, OnError, Span, retry_unreachable};
use crate::paths::RootDirectory;
use crate::runs::{Outcome, Record};
use crate::systemd::{ServiceManager, notify};
use crate::units::{Restore, Unit};

/// How long a silence lasts beyond the downtime and the grace period if nothing ends it.
const SLACK: SignedDuration = SignedDuration::from_mins(30);
/// How often a run checks whether its silences have taken effect.
const POLL: Duration = Duration::from_secs(2);
/// How long [`end`] waits for the state of the executor: during a shutdown the bus may not answer.
const BUS: Duration = Duration::from_secs(5);
/// How long after the run the end of a silence is retried.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(24);

/// Begins every configured silence, and ends those of an earlier run that are not configured any
/// more. Fails only if the record cannot be written: the executor finds in the record which
/// silences failed, and decides.
pub async fn begin(config: &Config, base: Base<'_>) -> Result<()> {
    let Base { clock, root, .. } = base;
    let earlier = SilenceRecord::load(root)?.map(|held| held.silences).unwrap_or_default();
    let configured = &config.monitoring.silences;
    let mut entries: Vec<SilenceEntry> = Vec::new();
    for silence in configured {
        let known = earlier.iter().find(|entry| entry.silence == *silence);
        entries.push(known.cloned().unwrap_or_else(|| SilenceEntry::new(silence.clone())));
    }
    let leftover: Vec<SilenceEntry> =
        earlier.into_iter().filter(|entry| !configured.contains(&entry.silence)).collect();
    let mut held = new_record(config, entries, clock.now());
    held.silences.extend(leftover.iter().cloned());
    held.save(root)?;
    let ended = join_all(leftover.iter().map(try_end)).await;
    for (entry, _) in leftover.iter().zip(ended).filter(|(_, ended)| *ended) {
        held.silences.retain(|other| other.silence != entry.silence);
    }
    request(config, base, &mut held).await?;
    notify::status("the monitoring is silenced");
    Ok(())
}

/// Why the run must end before GitLab is stopped: with `on-error = "abort"`, a missing silence.
pub fn reason_to_abort(config: &Config, root: &RootDirectory) -> Result<Option<String>> {
    let missing = missing(config, root)?;
    let abort = config.monitoring.on_error == OnError::Abort && !missing.is_empty();
    Ok(abort.then(|| format!("{} ([monitoring] on-error = \"abort\")", missing.join("; "))))
}

/// The configured silences that the run does not have, each with the reason.
pub fn missing(config: &Config, root: &RootDirectory) -> Result<Vec<String>> {
    if config.monitoring.silences.is_empty() {
        return Ok(Vec::new());
    }
    match SilenceRecord::load(root)? {
        Some(held) => Ok(held.missing()),
        None => Ok(vec![format!(
            "the monitoring was not silenced: {} failed (do its token files exist?)",
            Unit::Silence
        )]),
    }
}

/// The last step before the window: extends the silences until after the window, and waits until
/// they have taken effect, for `[monitoring] wait` at most.
pub async fn ensure_in_effect<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Base { clock, root, .. } = base;
    let monitoring = &config.monitoring;
    let mut held = SilenceRecord::load(root)?.unwrap_or_else(|| {
        let entries = monitoring.silences.iter().cloned().map(SilenceEntry::new).collect();
        new_record(config, entries, clock.now())
    });
    let manager = connect().await?;
    if !manager.state(&Unit::Silence.to_string()).await?.active.is_running() {
        // Its failure has started the service that ends the silences, unless the record shows that
        // the run continues.
        held.over = None;
        held.save(root)?;
        manager.start_later(&Unit::UnsilenceTimer.to_string()).await?;
    }
    let needed = clock.now() + needed_duration(config);
    let missing = held.silences.iter().any(|entry| entry.error.is_some() || !entry.begun);
    if missing || held.until < needed {
        held.until = needed + SLACK;
        held.begun = clock.now();
        request(config, base, &mut held).await?;
    }
    if let Some(reason) = reason_to_abort(config, root)? {
        bail!("{reason}");
    }
    let late = wait_until_in_effect(&held, monitoring.wait.duration(), clock).await;
    held.late = late
        .iter()
        .map(|entry| format!("{}: not in effect after {}", entry.name(), monitoring.wait))
        .collect();
    for line in &held.late {
        tracing::warn!("{line}: the backup continues");
    }
    held.save(root)
}

/// Polls the silences that have begun, for `limit` at most. Returns those that have not taken
/// effect.
async fn wait_until_in_effect<'a>(
    held: &'a SilenceRecord,
    limit: Duration,
    clock: &dyn Clock,
) -> Vec<&'a SilenceEntry> {
    let since_begin = || clock.now().duration_since(held.begun).unsigned_abs();
    let started = Instant::now();
    let mut waiting: Vec<&SilenceEntry> =
        held.silences.iter().filter(|entry| entry.error.is_none()).collect();
    loop {
        let mut next = Vec::new();
        for entry in waiting {
            match entry.silence.system().in_effect().await {
                Ok(true) => {
                    tracing::info!(silence = entry.name(), after = ?since_begin(), "in effect");
                }
                Ok(false) => next.push(entry),
                Err(error) => {
                    tracing::debug!(silence = entry.name(), "{error:#}");
                    next.push(entry);
                }
            }
        }
        waiting = next;
        // Both clocks count: the system clock may be set in the meantime.
        if waiting.is_empty() || since_begin() >= limit || started.elapsed() >= limit {
            return waiting;
        }
        let names: Vec<&str> = waiting.iter().map(|entry| entry.name()).collect();
        notify::status(&format!("waiting until these are silenced: {}", names.join(", ")));
        sleep(POLL).await;
    }
}

/// The end of the bracket. Does not delay anything: a timer later ends the silences that have a
/// grace period, and those that cannot be ended now; `later` queues its start. Does not read the
/// configuration.
pub async fn end<M: ServiceManager>(
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
    later: impl AsyncFnOnce(String) -> Result<()>,
) -> Result<()> {
    let Base { clock, root, .. } = base;
    let Some(mut held) = SilenceRecord::load(root)? else { return Ok(()) };
    // If the bracket ends because its start failed, the run continues: systemd retries the start
    // with each stage, and the timer's service waits for the end of the run.
    let continues = matches!(timeout(BUS, running_executor(connect)).await, Ok(Ok(Some(_))));
    if !continues {
        held.over = Some(clock.now());
        held.save(root)?;
    }
    later(Unit::UnsilenceTimer.to_string()).await?;
    if continues {
        return Ok(());
    }
    let (later, now): (Vec<SilenceEntry>, Vec<SilenceEntry>) =
        held.silences.into_iter().partition(|entry| entry.silence.system().has_grace());
    held.silences = later;
    for entry in now {
        if !try_end(&entry).await {
            held.silences.push(entry);
        }
    }
    held.save(root)
}

/// Ends the recorded silences. Fails if one remains, so that systemd starts the service again.
pub async fn unsilence<M: ServiceManager>(
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Base { clock, root, .. } = base;
    let Some(mut held) = SilenceRecord::load(root)? else { return Ok(()) };
    // The failed start of the bracket also starts this service, and then the run continues.
    if held.over.is_none()
        && let Some(executor) = running_executor(connect).await?
    {
        bail!("{executor} is still running: trying again when it has ended");
    }
    let over = held.over.unwrap_or(held.begun);
    let mut remaining = Vec::new();
    let mut errors = Vec::new();
    for entry in std::mem::take(&mut held.silences) {
        let name = entry.name();
        match retry_unreachable(|| end_silence(&entry)).await {
            Ok(()) => tracing::info!(silence = name, "ended"),
            // As far as is known it never began: one attempt is enough.
            Err(error) if !entry.begun => {
                tracing::info!(silence = name, "had not begun, no need to end it: {error:#}");
            }
            Err(error) if clock.now().duration_since(over) > GIVE_UP => {
                tracing::error!(silence = name, "could not be ended within a day: {error:#}");
            }
            Err(error) => {
                errors.push(format!("{name}: {error:#}"));
                remaining.push(entry);
            }
        }
    }
    held.silences = remaining;
    held.save(root)?;
    if errors.is_empty() {
        return Ok(());
    }
    bail!("could not end all silences, will retry: {}", errors.join("; "))
}

/// The executor, of a backup or of a restore, that is running.
async fn running_executor<M: ServiceManager>(
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<Option<Unit>> {
    let manager = connect().await?;
    for executor in [Unit::Run, Restore::Run.into()] {
        if !manager.state(&executor.to_string()).await?.is_settled() {
            return Ok(Some(executor));
        }
    }
    Ok(None)
}

fn new_record(config: &Config, silences: Vec<SilenceEntry>, begun: Timestamp) -> SilenceRecord {
    let until = begun + needed_duration(config) + SLACK;
    SilenceRecord { begun, until, over: None, silences, late: Vec::new() }
}

/// How long a silence must last if the window opened now.
fn needed_duration(config: &Config) -> SignedDuration {
    let Monitoring { grace, wait, .. } = &config.monitoring;
    let longest = config.gitlab.max_downtime.duration() + grace.duration() + wait.duration();
    SignedDuration::try_from(longest).unwrap_or(SignedDuration::from_hours(24))
}

/// Requests the recorded silences that are configured, all at the same time, and records the
/// results.
async fn request(config: &Config, base: Base<'_>, held: &mut SilenceRecord) -> Result<()> {
    let records = Record::all(base.root, base.clock.now()).unwrap_or_default();
    let last = records.iter().find(|record| record.outcome == Outcome::Complete);
    let downtime = last.and_then(|record| record.downtime).map(|downtime| downtime.total());
    let span = Span { from: held.begun, until: held.until, downtime };
    let configured: Vec<&mut SilenceEntry> = held
        .silences
        .iter_mut()
        .filter(|entry| config.monitoring.silences.contains(&entry.silence))
        .collect();
    join_all(configured.into_iter().map(|entry| request_one(entry, &span))).await;
    held.save(base.root)
}

/// Begins or extends one silence, and notes the result in its entry.
async fn request_one(entry: &mut SilenceEntry, span: &Span) {
    let system = entry.silence.system();
    match retry_unreachable(|| system.begin(span, entry.id.as_deref())).await {
        Ok(id) => {
            tracing::info!(silence = system.name(), until = %span.until, "begun");
            (entry.id, entry.begun, entry.error) = (id, true, None);
        }
        Err(error) => {
            tracing::warn!(silence = system.name(), "{error:#}");
            entry.error = Some(format!("{error:#}"));
        }
    }
}

/// Ends one silence, and logs if that fails.
async fn try_end(entry: &SilenceEntry) -> bool {
    match retry_unreachable(|| end_silence(entry)).await {
        Ok(()) => {
            tracing::info!(silence = entry.name(), "ended");
            true
        }
        Err(error) => {
            tracing::warn!(silence = entry.name(), "could not be ended yet: {error:#}");
            false
        }
    }
}

async fn end_silence(entry: &SilenceEntry) -> Result<()> {
    entry.silence.system().end(entry.id.as_deref()).await.context("cannot end the silence")
}
