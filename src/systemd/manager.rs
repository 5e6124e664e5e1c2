//! The connection to PID 1. Lives through `daemon-reload`, `daemon-reexec` and a lost bus: every
//! call is made again on a new connection, and nothing is concluded from an answer that did not
//! come.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use zbus::Connection;
use zbus::OwnedVariant as OwnedValue;
use zbus::Variant as Value;
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;

use super::UnitState;
use super::proxy::ManagerProxy;
use super::state::time;

/// systemd's own limit for a call; zbus has none.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// `daemon-reload` generates and reads every unit of the host.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(180);
/// How long PID 1 may be off the bus. `daemon-reexec` takes about a second.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// After how long that is told.
const RECONNECT_NEWS: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long nothing may be told before it is looked whether something has changed.
const LOOK: Duration = Duration::from_secs(1);

/// PID 1, as seen from the system bus.
pub struct Manager {
    bus: Arc<Bus>,
}

/// The connection, which is made anew when the bus was started again.
struct Bus {
    connection: Mutex<Connection>,
    /// Units that are kept in memory: a new connection has to ask for it again.
    held: Mutex<BTreeSet<String>>,
    /// Units that were looked at.
    looked: Mutex<BTreeSet<String>>,
}

impl Bus {
    fn connection(&self) -> Connection {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn proxy(&self) -> zbus::Result<ManagerProxy<'static>> {
        ManagerProxy::builder(&self.connection())
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
    }

    /// Makes a new connection in place of `lost`, unless somebody has done so already.
    async fn renew(&self, lost: &Connection) -> zbus::Result<()> {
        if self.connection().unique_name() != lost.unique_name() {
            return Ok(());
        }
        let new = Connection::system().await?;
        tracing::info!("the system bus was started again: connected to it anew");
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = new;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proxy = self.proxy().await?;
        for unit in held {
            proxy.load_unit(&unit).await?;
            proxy.ref_unit(&unit).await?;
        }
        Ok(())
    }
}

/// A job that came or went: what `JobNew` and `JobRemoved` tell. Numbers grow, and what is queued
/// together has numbers side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// A job was queued for the unit.
    New {
        /// Its number.
        id: u32,
        /// The unit.
        unit: String,
    },
    /// A job of the unit ended.
    Removed {
        /// Its number.
        id: u32,
        /// The unit.
        unit: String,
        /// How: `done`, `canceled`, `failed`, `dependency`, `skipped`, …
        result: String,
    },
}

impl Manager {
    /// Connects to the system bus. Fails after a minute of trying.
    pub async fn connect() -> Result<Self> {
        let started = Instant::now();
        let deadline = started + RECONNECT_PATIENCE;
        let mut told = false;
        loop {
            match timeout(CALL_TIMEOUT, Connection::system()).await {
                Ok(Ok(connection)) => {
                    return Ok(Self {
                        bus: Arc::new(Bus {
                            connection: Mutex::new(connection),
                            held: Mutex::default(),
                            looked: Mutex::default(),
                        }),
                    });
                }
                Ok(Err(error)) if Instant::now() >= deadline => {
                    return Err(error)
                        .context("cannot connect to the system bus (is dbus.service running?)");
                }
                Err(_) => bail!(
                    "the system bus did not answer within {CALL_TIMEOUT:?} (is dbus.service running?)"
                ),
                Ok(Err(error)) => {
                    // Whoever sits before it wants to know what is waited for.
                    if !told && started.elapsed() > RECONNECT_NEWS {
                        tracing::warn!(
                            "waiting for the system bus, {RECONNECT_PATIENCE:?} at most: {error} (is dbus.service running?)"
                        );
                        told = true;
                    }
                    sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    async fn proxy(&self) -> zbus::Result<ManagerProxy<'static>> {
        self.bus.proxy().await
    }

    /// The properties of `path`.
    async fn properties(
        &self,
        path: zbus::OwnedObjectPath,
    ) -> zbus::Result<PropertiesProxy<'static>> {
        PropertiesProxy::builder(&self.bus.connection())
            .destination("org.freedesktop.systemd1")
            .path(path)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
    }

    /// systemd's version, the number alone.
    pub async fn version(&self) -> Result<u32> {
        let text = self
            .retry("read systemd's version", async || self.proxy().await?.version().await)
            .await?;
        let digits: String = text
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().with_context(|| format!("systemd's version '{text}' has no number"))
    }

    /// Queues a start; `mode` as in systemctl(1) `--job-mode=`.
    pub async fn start(&self, unit: &str, mode: &str) -> Result<()> {
        self.start_job(unit, mode).await.map(drop)
    }

    /// The same, and tells its job's number, 0 if that was lost. Asking again is harmless: if the
    /// answer to the first call was lost, the unit's invocation tells whether it was heard.
    pub async fn start_job(&self, unit: &str, mode: &str) -> Result<u32> {
        let before = self.state(unit).await?;
        let mut asked = false;
        self.retry(&format!("start {unit}"), async || -> zbus::Result<u32> {
            if asked {
                let now = self
                    .state(unit)
                    .await
                    .map_err(|error| zbus::Error::Failure(error.to_string()))?;
                if now.has_job || now.invocation != before.invocation {
                    return Ok(0);
                }
            }
            asked = true;
            let job = self.proxy().await?.start_unit(unit, mode).await?;
            Ok(job.as_str().rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0))
        })
        .await
    }

    /// Has a unit of ours up that does nothing and is part of `unit`; one that is there already is
    /// another's, and is as good.
    pub async fn mark(&self, name: &str, unit: &str) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        let program = program.to_str().context("the path of this program is not UTF-8")?;
        let argv = vec![program, "--version"];
        self.retry(&format!("start {name}"), async || {
            let properties = [
                (
                    "Description",
                    Value::from("GitLab backup: notices that a unit is stopped which is down"),
                ),
                ("PartOf", Value::from(vec![unit])),
                ("Type", Value::from("oneshot")),
                ("RemainAfterExit", Value::from(true)),
                ("ExecStart", Value::from(vec![(program, argv.clone(), false)])),
                ("StandardOutput", Value::from("null")),
                ("CollectMode", Value::from("inactive-or-failed")),
                // It starts and stops in every window, which nobody wants to read of: warnings.
                ("LogLevelMax", Value::from(4i32)),
            ];
            match self.proxy().await?.start_transient_unit(name, "replace", &properties, &[]).await
            {
                Err(error) if self::name(&error) == Some("org.freedesktop.systemd1.UnitExists") => {
                    Ok(())
                }
                done => done.map(drop),
            }
        })
        .await
    }

    /// Queues a stop. A unit that is not loaded is stopped.
    pub async fn stop(&self, unit: &str) -> Result<()> {
        self.retry(&format!("stop {unit}"), async || {
            absent_is_fine(self.proxy().await?.stop_unit(unit, "replace").await.map(drop))
        })
        .await
    }

    /// Queues a stop unless a start of it, or of what requires it, is queued or under way; whether
    /// it did.
    pub async fn stop_unclaimed(&self, unit: &str) -> Result<bool> {
        self.retry(&format!("stop {unit}"), async || {
            match self.proxy().await?.stop_unit(unit, "fail").await {
                Err(error)
                    if name(&error)
                        == Some("org.freedesktop.systemd1.TransactionIsDestructive") =>
                {
                    Ok(false)
                }
                other => absent_is_fine(other.map(drop)).map(|()| true),
            }
        })
        .await
    }

    /// Queues a stop of the unit alone: what requires it, or is part of what requires it, stays up.
    /// What is bound to it goes down all the same.
    pub async fn stop_alone(&self, unit: &str) -> Result<()> {
        let what = format!("stop {unit} alone");
        self.retry(&what, async || {
            absent_is_fine(
                self.proxy().await?.stop_unit(unit, "ignore-requirements").await.map(drop),
            )
        })
        .await
    }

    /// SIGKILL to every process of a unit.
    pub async fn kill(&self, unit: &str) -> Result<()> {
        const SIGKILL: i32 = 9;
        self.retry(&format!("kill {unit}"), async || {
            absent_is_fine(self.proxy().await?.kill_unit(unit, "all", SIGKILL).await)
        })
        .await
    }

    /// Freezes every process of a unit; returns when it is. Fails where control groups cannot.
    pub async fn freeze(&self, unit: &str) -> Result<()> {
        self.retry(&format!("freeze {unit}"), async || self.proxy().await?.freeze_unit(unit).await)
            .await
    }

    /// Lets a frozen unit go on. One that is gone or was not frozen is fine.
    pub async fn thaw(&self, unit: &str) -> Result<()> {
        self.retry(&format!("thaw {unit}"), async || {
            absent_is_fine(self.proxy().await?.thaw_unit(unit).await)
        })
        .await
    }

    /// Keeps the unit in memory while this connection lives, so that its result can be read after
    /// it ended, and forgets earlier failures and attempts.
    pub async fn hold(&self, unit: &str) -> Result<()> {
        self.retry(&format!("hold {unit}"), async || {
            let proxy = self.proxy().await?;
            proxy.load_unit(unit).await?;
            proxy.ref_unit(unit).await?;
            absent_is_fine(proxy.reset_failed_unit(unit).await)
        })
        .await?;
        self.bus.held.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned());
        Ok(())
    }

    /// Forgets that a unit failed.
    pub async fn reset(&self, unit: &str) -> Result<()> {
        self.retry(&format!("reset {unit}"), async || {
            absent_is_fine(self.proxy().await?.reset_failed_unit(unit).await)
        })
        .await
    }

    /// The unit whose process this is.
    pub async fn unit_of(&self, pid: u32) -> Result<String> {
        self.retry(&format!("tell the unit of process {pid}"), async || {
            let path = self.proxy().await?.get_unit_by_pid(pid).await?;
            let unit = self.properties(path).await?;
            let id =
                unit.get(InterfaceName::try_from("org.freedesktop.systemd1.Unit")?, "Id").await?;
            Ok(<&str>::try_from(&id)?.to_owned())
        })
        .await
    }

    /// `daemon-reload`.
    pub async fn reload(&self) -> Result<()> {
        let call = async { self.proxy().await?.reload().await };
        timeout(RELOAD_TIMEOUT, call)
            .await
            .context("systemd did not finish its reload")?
            .context("cannot reload systemd's units")
    }

    /// `systemctl enable`.
    pub async fn enable(&self, unit: &str) -> Result<()> {
        self.retry(&format!("enable {unit}"), async || {
            self.proxy().await?.enable_unit_files(&[unit], false, true).await.map(drop)
        })
        .await
    }

    /// `systemctl is-enabled`: `enabled`, `disabled`, `masked`, …
    pub async fn enablement(&self, unit: &str) -> Result<String> {
        self.retry(&format!("tell whether {unit} is enabled"), async || {
            self.proxy().await?.get_unit_file_state(unit).await
        })
        .await
    }

    /// `systemctl disable`.
    pub async fn disable(&self, unit: &str) -> Result<()> {
        self.retry(&format!("disable {unit}"), async || {
            self.proxy().await?.disable_unit_files(&[unit], false).await.map(drop)
        })
        .await
    }

    /// The names of all units in memory whose names begin so.
    pub async fn loaded(&self, prefix: &str) -> Result<Vec<String>> {
        self.retry("list the units", async || {
            let units =
                self.proxy().await?.list_units_by_patterns(&[], &[&format!("{prefix}*")]).await?;
            Ok(units.into_iter().map(|unit| unit.0).collect())
        })
        .await
    }

    /// The names of all services that run.
    pub async fn running_services(&self) -> Result<Vec<String>> {
        self.retry("list the services", async || {
            let units = self
                .proxy()
                .await?
                .list_units_by_patterns(&["active", "reloading", "activating"], &["*.service"])
                .await?;
            // A oneshot that is over is active, and does nothing.
            Ok(units.into_iter().filter(|unit| unit.4 != "exited").map(|unit| unit.0).collect())
        })
        .await
    }

    /// Reads the unit. A unit that does not exist has `load` = `not-found`.
    pub async fn state(&self, unit: &str) -> Result<UnitState> {
        let state = self.look(unit).await?;
        let first =
            self.bus.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned());
        // What is down and needed by nobody is forgotten at once, and read from its files for every
        // look: thousands of times in a run. One that has no files is gone when it is down, and
        // must be.
        if !first && state.load == "loaded" && !state.transient && state.active.is_down() {
            let held = self
                .bus
                .held
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(unit.to_owned());
            if held && let Err(error) = self.proxy().await?.ref_unit(unit).await {
                // It costs time, and nothing else.
                tracing::debug!(unit, %error, "cannot be kept in memory");
            }
        }
        Ok(state)
    }

    async fn look(&self, unit: &str) -> Result<UnitState> {
        let all = async |path: zbus::OwnedObjectPath, interface: &'static str| {
            let properties = self.properties(path).await?;
            let interface = InterfaceName::try_from(interface)?;
            Ok::<HashMap<String, OwnedValue>, zbus::Error>(properties.get_all(interface).await?)
        };
        self.retry(&format!("read {unit}"), async || {
            let path = self.proxy().await?.load_unit(unit).await?;
            let general = all(path.clone(), "org.freedesktop.systemd1.Unit").await?;
            let service = match unit.ends_with(".service") {
                true => all(path, "org.freedesktop.systemd1.Service").await?,
                false => HashMap::new(),
            };
            Ok(UnitState::new(unit, &general, &service))
        })
        .await
    }

    /// When a timer last started what it is for; outlives a reboot with `Persistent=yes`.
    pub async fn last_trigger(&self, timer: &str) -> Result<Option<Timestamp>> {
        self.retry(&format!("read {timer}"), async || {
            let path = self.proxy().await?.load_unit(timer).await?;
            let properties = self.properties(path).await?;
            let value = properties
                .get(InterfaceName::try_from("org.freedesktop.systemd1.Timer")?, "LastTriggerUSec")
                .await?;
            Ok(time(u64::try_from(&value)?))
        })
        .await
    }

    /// Every job that comes and goes from now on. The task behind it lives as long as the receiver
    /// and subscribes again after a `daemon-reexec` or a new start of the bus; jobs in between are
    /// missed, so a caller must not rely on having seen all.
    pub async fn jobs(&self) -> Result<Jobs> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let bus = Arc::clone(&self.bus);
        let (ready, subscribed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut ready = Some(ready);
            while !sender.is_closed() {
                let connection = bus.connection();
                let told = forward_jobs(&connection, &sender, &mut ready).await;
                sleep(RECONNECT_PAUSE).await;
                if let Err(error) = told {
                    tracing::debug!(%error, "job signals interrupted");
                    if connection.is_closed() {
                        let _ = bus.renew(&connection).await;
                    }
                }
            }
        });
        // What is asked for from here on is told. If not even that can be had, looks have to do.
        let _ = timeout(CALL_TIMEOUT, subscribed).await;
        Ok(Jobs { receiver, seen: VecDeque::new() })
    }

    /// Makes a call, again and again while PID 1 is away from the bus.
    async fn retry<T>(
        &self,
        what: &str,
        mut call: impl AsyncFnMut() -> zbus::Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + RECONNECT_PATIENCE;
        loop {
            let connection = self.bus.connection();
            let answer = timeout(CALL_TIMEOUT, call()).await;
            let lost =
                connection.is_closed() || matches!(&answer, Ok(Err(zbus::Error::InputOutput(_))));
            let error = match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_away(&error) || lost => anyhow!(error),
                Ok(Err(error)) => {
                    return Err(error).with_context(|| format!("systemd would not {what}"));
                }
                Err(_) => anyhow!("no answer within {CALL_TIMEOUT:?}"),
            };
            if lost {
                let _ = timeout(CALL_TIMEOUT, self.bus.renew(&connection)).await;
            }
            if Instant::now() >= deadline {
                return Err(error)
                    .with_context(|| format!("cannot {what}: systemd is not on the bus"));
            }
            tracing::debug!(what, error = %error, "systemd is away from the bus, trying again");
            sleep(RECONNECT_PAUSE).await;
        }
    }
}

/// What is told of jobs, and how to wait for it.
pub struct Jobs {
    receiver: mpsc::UnboundedReceiver<JobEvent>,
    seen: VecDeque<JobEvent>,
}

impl Jobs {
    /// What has been told and not been taken yet.
    pub fn take(&mut self) -> Option<JobEvent> {
        self.seen.pop_front().or_else(|| self.receiver.try_recv().ok())
    }

    /// The same for whoever looks at everything then: what has been told already is no news.
    pub async fn another(&mut self) {
        while self.take().is_some() {}
        self.wait().await;
    }

    /// Returns as soon as something is told, and at the latest after [`LOOK`]: what is not told is
    /// looked at.
    pub async fn wait(&mut self) {
        if let Ok(Some(event)) = timeout(LOOK, self.receiver.recv()).await {
            self.seen.push_back(event);
        }
    }
}

async fn forward_jobs(
    connection: &Connection,
    sender: &mpsc::UnboundedSender<JobEvent>,
    ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
) -> Result<()> {
    let proxy = ManagerProxy::new(connection).await?;
    let mut new = proxy.receive_job_new().await?;
    let mut removed = proxy.receive_job_removed().await?;
    let mut owner = proxy.inner().receive_owner_changed().await?;
    subscribe(&proxy).await?;
    ready.take().map(|ready| ready.send(()));
    loop {
        // In the order in which they were sent, as far as two streams keep it: a job comes before
        // it goes.
        let event = tokio::select! {
            biased;
            signal = new.next() => {
                let signal = signal.context("connection lost")?;
                let args = signal.args()?;
                JobEvent::New { id: args.id, unit: args.unit.to_owned() }
            }
            signal = removed.next() => {
                let signal = signal.context("connection lost")?;
                let args = signal.args()?;
                JobEvent::Removed { id: args.id, unit: args.unit.to_owned(), result: args.result.to_owned() }
            }
            change = owner.next() => match change.context("connection lost")? {
                // Re-executed: its subscribers may be forgotten.
                Some(_) => { subscribe(&proxy).await?; continue }
                None => continue,
            },
            () = sender.closed() => return Ok(()),
        };
        if sender.send(event).is_err() {
            return Ok(());
        }
    }
}

/// Asks for the signals; another receiver of this connection may have done so.
async fn subscribe(proxy: &ManagerProxy<'_>) -> Result<()> {
    match timeout(CALL_TIMEOUT, proxy.subscribe()).await? {
        Err(error) if name(&error) == Some("org.freedesktop.systemd1.AlreadySubscribed") => Ok(()),
        other => Ok(other?),
    }
}

/// The D-Bus error's name, if it is one.
fn name(error: &zbus::Error) -> Option<&str> {
    match error {
        zbus::Error::MethodError(name, _, _) => Some(name.as_str()),
        zbus::Error::FDO(error) => match **error {
            zbus::fdo::Error::ServiceUnknown(_) => {
                Some("org.freedesktop.DBus.Error.ServiceUnknown")
            }
            zbus::fdo::Error::NameHasNoOwner(_) => {
                Some("org.freedesktop.DBus.Error.NameHasNoOwner")
            }
            zbus::fdo::Error::NoReply(_) => Some("org.freedesktop.DBus.Error.NoReply"),
            zbus::fdo::Error::Disconnected(_) => Some("org.freedesktop.DBus.Error.Disconnected"),
            zbus::fdo::Error::Timeout(_) => Some("org.freedesktop.DBus.Error.Timeout"),
            _ => None,
        },
        _ => None,
    }
}

/// Whether PID 1 was not there to answer, as opposed to having answered with an error.
fn is_away(error: &zbus::Error) -> bool {
    matches!(
        name(error).and_then(|name| name.strip_prefix("org.freedesktop.DBus.Error.")),
        Some(
            "ServiceUnknown"
                | "NameHasNoOwner"
                | "NoReply"
                | "Disconnected"
                | "Timeout"
                | "TimedOut"
                | "UnknownObject"
        )
    )
}

/// "No such unit" is what was wanted.
fn absent_is_fine(result: zbus::Result<()>) -> zbus::Result<()> {
    match result {
        Err(error) if name(&error) == Some("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
        other => other,
    }
}
