//! Receives systemd's signals as [`Event`]s, also after the connection was lost.

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

/// How many signals are buffered. A stop of all of GitLab sends some hundred.
const QUEUE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// All events from now on. The task that receives them ends with the receiver. It subscribes again
/// after a `daemon-reexec` or a restart of the bus.
pub(super) async fn listen(bus: &Arc<Bus>) -> Events {
    let (sender, events) = Events::channel();
    let bus = Arc::clone(bus);
    let (ready, listens) = oneshot::channel();
    tokio::spawn(async move {
        let mut ready = Some(ready);
        while !sender.is_closed() {
            let connection = bus.connection();
            let result = forward(&connection, &sender, &mut ready).await;
            sleep(RECONNECT_PAUSE).await;
            if let Err(error) = result {
                tracing::debug!(%error, "systemd's signals interrupted");
                if connection.is_closed() {
                    let _ = bus.reconnect(&connection).await;
                }
            }
        }
    });
    // Jobs that are queued from here on are reported. If the subscription fails, the views notice
    // changes by polling.
    let _ = timeout(CALL_TIMEOUT, listens).await;
    events
}

/// Forwards the signals of one connection until it is lost.
async fn forward(
    connection: &Connection,
    sender: &UnboundedSender<Event>,
    ready: &mut Option<oneshot::Sender<()>>,
) -> Result<()> {
    // One stream for all signals keeps their order.
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
                // systemd was re-executed and may have lost its subscribers.
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

/// The event of a signal, if it is of interest.
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
            // The properties of the unit's type come in another signal.
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

/// Subscribes to the signals, unless this connection has subscribed already.
async fn subscribe(proxy: &ManagerProxy<'_>) -> Result<()> {
    match timeout(CALL_TIMEOUT, proxy.subscribe()).await? {
        Err(error) if name(&error) == Some("org.freedesktop.systemd1.AlreadySubscribed") => Ok(()),
        other => Ok(other?),
    }
}
