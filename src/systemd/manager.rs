//! The host's systemd, on the system bus.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::timeout;
use zbus::OwnedVariant as OwnedValue;
use zbus::Variant as Value;
use zbus::names::InterfaceName;

use super::bus::{Bus, ignore_absent, name};
use super::later::start_later;
use super::service_manager::{Mode, ServiceManager, Summary};
use super::state::time;
use super::{ActiveState, Events, UnitState, path, signals};

/// `daemon-reload` runs all generators and reads every unit of the host.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(180);

/// systemd, over D-Bus.
pub struct Manager {
    bus: Arc<Bus>,
    /// Units that were read once and that have unit files.
    seen: Mutex<BTreeSet<String>>,
}

impl Manager {
    /// Connects to the system bus. Fails after a minute of trying.
    pub async fn connect() -> Result<Self> {
        Ok(Self { bus: Bus::connect().await?, seen: Mutex::default() })
    }

    /// `daemon-reload`.
    pub async fn reload(&self) -> Result<()> {
        let call = async { self.bus.proxy().await?.reload().await };
        timeout(RELOAD_TIMEOUT, call)
            .await
            .context("systemd did not finish its reload")?
            .context("cannot reload systemd's units")
    }

    /// `systemctl enable`.
    pub async fn enable(&self, unit: &str) -> Result<()> {
        self.bus
            .retry(&format!("enable {unit}"), async || {
                self.bus.proxy().await?.enable_unit_files(&[unit], false, true).await.map(drop)
            })
            .await
    }

    /// `systemctl is-enabled`: `enabled`, `disabled`, `masked`, …
    pub async fn enablement(&self, unit: &str) -> Result<String> {
        self.bus
            .retry(&format!("tell whether {unit} is enabled"), async || {
                self.bus.proxy().await?.get_unit_file_state(unit).await
            })
            .await
    }

    /// `systemctl disable`.
    pub async fn disable(&self, unit: &str) -> Result<()> {
        self.bus
            .retry(&format!("disable {unit}"), async || {
                self.bus.proxy().await?.disable_unit_files(&[unit], false).await.map(drop)
            })
            .await
    }

    /// When a timer last elapsed; kept over a reboot with `Persistent=yes`.
    pub async fn last_trigger(&self, timer: &str) -> Result<Option<Timestamp>> {
        self.bus
            .retry(&format!("read {timer}"), async || {
                let properties = self.bus.properties(path::of(timer)?).await?;
                let value = properties
                    .get(InterfaceName::try_from(path::TIMER)?, "LastTriggerUSec")
                    .await?;
                Ok(time(u64::try_from(&value)?))
            })
            .await
    }

    /// Keeps `units` loaded. systemd unloads a unit that is down and unneeded at once, and would
    /// read its files again for every query: thousands of times in a run. Does not keep units
    /// without files: these must disappear when they are stopped.
    async fn keep_loaded(&self, units: &[&str]) {
        for unit in units {
            let is_seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(*unit);
            if is_seen
                && self.bus.kept().insert((*unit).to_owned())
                && let Err(error) = async { self.bus.proxy().await?.ref_unit(unit).await }.await
            {
                // Only costs time.
                tracing::debug!(unit, %error, "cannot be kept in memory");
            }
        }
    }

    /// Reads the properties of a unit.
    async fn read(&self, unit: &str) -> Result<UnitState> {
        let all = async |interface: &'static str| {
            let properties = self.bus.properties(path::of(unit)?).await?;
            let interface = InterfaceName::try_from(interface)?;
            Ok::<HashMap<String, OwnedValue>, zbus::Error>(properties.get_all(interface).await?)
        };
        self.bus
            .retry(&format!("read {unit}"), async || {
                let general = all(path::UNIT).await?;
                let service = match unit.ends_with(".service") {
                    true => all(path::SERVICE).await?,
                    false => HashMap::new(),
                };
                Ok(UnitState::read(unit, &general, &service))
            })
            .await
    }

    /// Whether a start was queued although the answer to the call was lost.
    async fn was_queued(&self, unit: &str, before: &UnitState) -> zbus::Result<bool> {
        let now = self.read(unit).await.map_err(|error| zbus::Error::Failure(error.to_string()))?;
        Ok(now.has_job() || now.invocation != before.invocation)
    }
}

#[async_trait(?Send)]
impl ServiceManager for Manager {
    async fn version(&self) -> Result<u32> {
        let text = self
            .bus
            .retry("read systemd's version", async || self.bus.proxy().await?.version().await)
            .await?;
        let digits: String = text
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().with_context(|| format!("systemd's version '{text}' has no number"))
    }

    async fn start(&self, unit: &str, mode: Mode) -> Result<u32> {
        let before = self.read(unit).await?;
        let mut is_repeated = false;
        self.bus
            .retry(&format!("start {unit}"), async || -> zbus::Result<u32> {
                if is_repeated && self.was_queued(unit, &before).await? {
                    return Ok(0);
                }
                is_repeated = true;
                let job = self.bus.proxy().await?.start_unit(unit, mode.word()).await?;
                let number = job.as_str().rsplit('/').next().and_then(|text| text.parse().ok());
                Ok(number.unwrap_or(0))
            })
            .await
    }

    async fn start_later(&self, unit: &str) -> Result<()> {
        start_later(unit).await
    }

    async fn stop(&self, unit: &str, mode: Mode) -> Result<bool> {
        const DESTRUCTIVE: &str = "org.freedesktop.systemd1.TransactionIsDestructive";
        self.bus
            .retry(&format!("stop {unit}"), async || {
                match self.bus.proxy().await?.stop_unit(unit, mode.word()).await {
                    Err(error) if mode == Mode::Fail && name(&error) == Some(DESTRUCTIVE) => {
                        Ok(false)
                    }
                    other => ignore_absent(other.map(drop)).map(|()| true),
                }
            })
            .await
    }

    async fn kill(&self, unit: &str) -> Result<()> {
        const SIGKILL: i32 = 9;
        self.bus
            .retry(&format!("kill {unit}"), async || {
                ignore_absent(self.bus.proxy().await?.kill_unit(unit, "all", SIGKILL).await)
            })
            .await
    }

    async fn terminate(&self, unit: &str) -> Result<()> {
        const SIGTERM: i32 = 15;
        self.bus
            .retry(&format!("terminate {unit}"), async || {
                ignore_absent(self.bus.proxy().await?.kill_unit(unit, "main", SIGTERM).await)
            })
            .await
    }

    async fn freeze(&self, unit: &str) -> Result<()> {
        self.bus
            .retry(&format!("freeze {unit}"), async || {
                self.bus.proxy().await?.freeze_unit(unit).await
            })
            .await
    }

    async fn thaw(&self, unit: &str) -> Result<()> {
        self.bus
            .retry(&format!("thaw {unit}"), async || {
                ignore_absent(self.bus.proxy().await?.thaw_unit(unit).await)
            })
            .await
    }

    async fn reset_failed(&self, unit: &str) -> Result<()> {
        self.bus
            .retry(&format!("reset {unit}"), async || {
                ignore_absent(self.bus.proxy().await?.reset_failed_unit(unit).await)
            })
            .await
    }

    async fn keep(&self, unit: &str) -> Result<()> {
        self.bus
            .retry(&format!("keep {unit}"), async || {
                let proxy = self.bus.proxy().await?;
                proxy.load_unit(unit).await?;
                proxy.ref_unit(unit).await
            })
            .await?;
        self.bus.kept().insert(unit.to_owned());
        Ok(())
    }

    async fn mark(&self, name: &str, unit: &str) -> Result<()> {
        const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        let program = program.to_str().context("the path of this program is not UTF-8")?;
        let argv = vec![program, "--version"];
        let description = "GitLab backup: detects that a stopped unit is stopped again";
        self.bus
            .retry(&format!("start {name}"), async || {
                let properties = [
                    ("Description", Value::from(description)),
                    ("PartOf", Value::from(vec![unit])),
                    ("Type", Value::from("oneshot")),
                    ("RemainAfterExit", Value::from(true)),
                    ("ExecStart", Value::from(vec![(program, argv.clone(), false)])),
                    ("StandardOutput", Value::from("null")),
                    ("CollectMode", Value::from("inactive-or-failed")),
                    // Warnings only: it starts and stops in every window.
                    ("LogLevelMax", Value::from(4i32)),
                ];
                let proxy = self.bus.proxy().await?;
                match proxy.start_transient_unit(name, "replace", &properties, &[]).await {
                    Err(error) if super::bus::name(&error) == Some(EXISTS) => Ok(()),
                    done => done.map(drop),
                }
            })
            .await
    }

    async fn loaded(&self, prefix: &str) -> Result<Vec<String>> {
        self.bus
            .retry("list the units", async || {
                let pattern = format!("{prefix}*");
                let units =
                    self.bus.proxy().await?.list_units_by_patterns(&[], &[&pattern]).await?;
                Ok(units.into_iter().map(|unit| unit.0).collect())
            })
            .await
    }

    async fn running_services(&self) -> Result<Vec<String>> {
        const RUNNING: [&str; 3] = ["active", "reloading", "activating"];
        self.bus
            .retry("list the services", async || {
                let proxy = self.bus.proxy().await?;
                let units = proxy.list_units_by_patterns(&RUNNING, &["*.service"]).await?;
                // A oneshot service with RemainAfterExit= stays active after its process has ended.
                Ok(units.into_iter().filter(|unit| unit.4 != "exited").map(|unit| unit.0).collect())
            })
            .await
    }

    async fn state(&self, unit: &str) -> Result<UnitState> {
        let state = self.read(unit).await?;
        if state.load == "loaded" && !state.transient {
            let first =
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned());
            if !first && state.active.is_down() {
                self.keep_loaded(&[unit]).await;
            }
        }
        Ok(state)
    }

    async fn unit_of(&self, pid: u32) -> Result<String> {
        self.bus
            .retry(&format!("tell the unit of process {pid}"), async || {
                let path = self.bus.proxy().await?.get_unit_by_pid(pid).await?;
                let unit = self.bus.properties(path).await?;
                let id = unit.get(InterfaceName::try_from(path::UNIT)?, "Id").await?;
                Ok(<&str>::try_from(&id)?.to_owned())
            })
            .await
    }

    async fn summaries(&self, units: &[&str]) -> Result<Vec<Summary>> {
        self.keep_loaded(units).await;
        self.bus
            .retry("list the units", async || {
                let listed = self.bus.proxy().await?.list_units_by_names(units).await?;
                Ok(listed
                    .into_iter()
                    .map(|unit| Summary {
                        active: ActiveState::parse(&unit.3),
                        sub: unit.4,
                        job: unit.7,
                    })
                    .collect())
            })
            .await
    }

    async fn events(&self) -> Result<Events> {
        Ok(signals::listen(&self.bus).await)
    }
}
