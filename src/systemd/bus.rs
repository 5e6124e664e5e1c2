//! The connection to PID 1. It survives `daemon-reload`, `daemon-reexec` and a restart of the bus:
//! calls without an answer are repeated, on a new connection if necessary.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, sleep, timeout};
use zbus::Connection;
use zbus::fdo::PropertiesProxy;

use super::proxy::ManagerProxy;

/// Time limit of a call: systemd's own. zbus has none.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// How long PID 1 may be unreachable. `daemon-reexec` takes about a second.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// After how long a warning says that the program waits for the bus.
const RECONNECT_WARNING: Duration = Duration::from_secs(2);
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// The connection, which is replaced when the bus was restarted.
pub(super) struct Bus {
    connection: Mutex<Connection>,
    /// Units that systemd keeps loaded for this connection; requested again on a new connection.
    kept: Mutex<BTreeSet<String>>,
}

impl Bus {
    /// Connects to the system bus. Fails after a minute of trying.
    pub async fn connect() -> Result<Arc<Self>> {
        let started = Instant::now();
        let deadline = started + RECONNECT_PATIENCE;
        let mut has_warned = false;
        loop {
            match timeout(CALL_TIMEOUT, Connection::system()).await {
                Ok(Ok(connection)) => {
                    let connection = Mutex::new(connection);
                    return Ok(Arc::new(Self { connection, kept: Mutex::default() }));
                }
                Ok(Err(error)) if Instant::now() >= deadline => {
                    return Err(error)
                        .context("cannot connect to the system bus (is dbus.service running?)");
                }
                Err(_) => bail!(
                    "the system bus did not answer within {CALL_TIMEOUT:?} (is dbus.service \
                     running?)"
                ),
                Ok(Err(error)) => {
                    if !has_warned && started.elapsed() > RECONNECT_WARNING {
                        tracing::warn!(
                            "waiting for the system bus, {RECONNECT_PATIENCE:?} at most: {error} \
                             (is dbus.service running?)"
                        );
                        has_warned = true;
                    }
                    sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    pub fn connection(&self) -> Connection {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn kept(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn proxy(&self) -> zbus::Result<ManagerProxy<'static>> {
        ManagerProxy::builder(&self.connection())
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
    }

    /// The properties of `path`.
    pub async fn properties(
        &self,
        path: zbus::OwnedObjectPath,
    ) -> zbus::Result<PropertiesProxy<'static>> {
        PropertiesProxy::builder(&self.connection())
            .destination("org.freedesktop.systemd1")
            .path(path)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
    }

    /// Replaces the connection `lost`, unless another task has replaced it already.
    pub async fn reconnect(&self, lost: &Connection) -> zbus::Result<()> {
        if self.connection().unique_name() != lost.unique_name() {
            return Ok(());
        }
        let new = Connection::system().await?;
        tracing::info!("the system bus was restarted: reconnected");
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = new;
        let kept = self.kept().clone();
        let proxy = self.proxy().await?;
        for unit in kept {
            proxy.load_unit(&unit).await?;
            proxy.ref_unit(&unit).await?;
        }
        Ok(())
    }

    /// Repeats a call while PID 1 is unreachable. Errors say that systemd would not, or that the
    /// program cannot, do `what`.
    pub async fn retry<T>(
        &self,
        what: &str,
        mut call: impl AsyncFnMut() -> zbus::Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + RECONNECT_PATIENCE;
        loop {
            let connection = self.connection();
            let answer = timeout(CALL_TIMEOUT, call()).await;
            let lost =
                connection.is_closed() || matches!(&answer, Ok(Err(zbus::Error::InputOutput(_))));
            let error = match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_unreachable(&error) || lost => anyhow!(error),
                Ok(Err(error)) => {
                    return Err(error).with_context(|| format!("systemd would not {what}"));
                }
                Err(_) => anyhow!("no answer within {CALL_TIMEOUT:?}"),
            };
            if lost {
                let _ = timeout(CALL_TIMEOUT, self.reconnect(&connection)).await;
            }
            if Instant::now() >= deadline {
                return Err(error)
                    .with_context(|| format!("cannot {what}: systemd is not on the bus"));
            }
            tracing::debug!(what, error = %error, "systemd is not on the bus, trying again");
            sleep(RECONNECT_PAUSE).await;
        }
    }
}

/// The D-Bus error's name, if it is one.
pub(super) fn name(error: &zbus::Error) -> Option<&str> {
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

/// Whether PID 1 was unreachable, as opposed to having answered with an error.
fn is_unreachable(error: &zbus::Error) -> bool {
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

/// Treats "no such unit" as success.
pub(super) fn ignore_absent(result: zbus::Result<()>) -> zbus::Result<()> {
    match result {
        Err(error) if name(&error) == Some("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
        other => other,
    }
}
