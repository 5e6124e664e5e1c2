//! systemd's signals, as [`Event`]s, whatever becomes of the connection.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use super::bus::{Bus, CALL_TIMEOUT, RECONNECT_PAUSE, name};
use super::proxy::ManagerProxy;
use super::{ActiveState, Event, Events, JobEvent, Summary, path};

/// So many are kept while nobody takes them: a stop of all of GitLab is some hundred.
const QUEUE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Everything that is told from now on. The task behind it lives as long as the receiver, and
/// listens again after a `daemon-reexec` or a new start of the bus.
pub(super) async fn listen(bus: &Arc<Bus>) -> Events {
    let (sender, events) = Events::channel();
    let bus = Arc::clone(bus);
    let (ready, listens) = oneshot::channel();
    tokio::spawn(async move {
        let mut ready = Some(ready);
        while !sender.is_closed() {
            let connection = bus.connection();
            let told = forward(&connection, &sender, &mut ready).await;
            sleep(RECONNECT_PAUSE).await;
            if let Err(error) = told {
                tracing::debug!(%error, "systemd's signals interrupted");
                if connection.is_closed() {
                    let _ = bus.renew(&connection).await;
                }
            }
        }
    });
    // What is asked for from here on is told. If not even that can be had, looks have to do.
    let _ = timeout(CALL_TIMEOUT, listens).await;
    events
}

async fn forward(
    connection: &Connection,
    sender: &UnboundedSender<Event>,
    ready: &mut Option<oneshot::Sender<()>>,
) -> Result<()> {
    // One stream for all: they come in the order in which they were sent.
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.systemd1")
        .path_namespace("/org/freedesktop/systemd1")
        .build()?;
    let proxy = ManagerProxy::new(connection).await?;
    let mut signals = MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await?;
    let mut owner = proxy.inner().receive_owner_changed().await?;
    subscribe(&proxy).await?;
    match ready.take() {
        Some(ready) => drop(ready.send(())),
        None => drop(sender.send(Event::Missed)),
    }
    loop {
        let event = tokio::select! {
            biased;
            signal = signals.next() => event(&signal.context("connection lost")??),
            change = owner.next() => match change.context("connection lost")? {
                // Re-executed: its subscribers may be forgotten.
                Some(_) => { subscribe(&proxy).await?; Some(Event::Missed) }
                None => None,
            },
            () = sender.closed() => return Ok(()),
        };
        if let Some(event) = event
            && sender.send(event).is_err()
        {
            return Ok(());
        }
    }
}

/// What a signal tells, if it is one that counts.
fn event(signal: &Message) -> Option<Event> {
    let header = signal.header();
    let body = signal.body();
    match header.member()?.as_str() {
        "JobNew" => {
            let (id, _, unit): (u32, OwnedObjectPath, String) = body.deserialize().ok()?;
            Some(Event::Job(JobEvent::New { id, unit }))
        }
        "JobRemoved" => {
            let (id, _, unit, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize().ok()?;
            Some(Event::Job(JobEvent::Removed { id, unit, result }))
        }
        "PropertiesChanged" => {
            let unit = path::unit(header.path()?.as_str())?;
            let (interface, now, _): (String, HashMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().ok()?;
            // What its kind alone has comes in a signal of its own.
            (interface == path::UNIT).then_some(())?;
            let text = |key: &str| <&str>::try_from(now.get(key)?).ok();
            let job = now.get("Job")?.try_clone().ok()?;
            let (job, _) = <(u32, OwnedObjectPath)>::try_from(job).ok()?;
            let active = ActiveState::parse(text("ActiveState")?);
            let now = Summary { active, sub: text("SubState")?.to_owned(), job };
            Some(Event::Changed { unit, now })
        }
        _ => None,
    }
}

/// Asks for the signals; another receiver of this connection may have done so.
async fn subscribe(proxy: &ManagerProxy<'_>) -> Result<()> {
    match timeout(CALL_TIMEOUT, proxy.subscribe()).await? {
        Err(error) if name(&error) == Some("org.freedesktop.systemd1.AlreadySubscribed") => Ok(()),
        other => Ok(other?),
    }
}
