//! The units that a loop goes by: looked at when something is told of them, and otherwise once a
//! second, all in one call. What is not told is seen all the same, and nothing is read for nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Event, Events, JobEvent, Mode, ServiceManager, Summary, UnitState};

/// How long nothing may be told before it is looked whether something has changed.
const LOOK: Duration = Duration::from_secs(1);

/// Some units, and the jobs of all.
pub struct UnitView<'a> {
    manager: &'a dyn ServiceManager,
    events: Events,
    /// As they were read last; none of those that were only named.
    known: BTreeMap<String, Option<UnitState>>,
    /// Something has happened since: what is read now is read from the manager.
    live: bool,
    /// Something was asked for, and will happen.
    asked: bool,
    /// What happened to jobs, for whoever asks for that.
    jobs: Option<VecDeque<JobEvent>>,
}

impl<'a> UnitView<'a> {
    /// Hears what happens from now on.
    pub async fn new(manager: &'a dyn ServiceManager) -> Result<Self> {
        Ok(Self {
            manager,
            events: manager.events().await?,
            known: BTreeMap::new(),
            live: true,
            asked: false,
            jobs: None,
        })
    }

    /// The same, and remembers what happens to jobs until that is taken.
    pub async fn with_jobs(manager: &'a dyn ServiceManager) -> Result<Self> {
        Ok(Self { jobs: Some(VecDeque::new()), ..Self::new(manager).await? })
    }

    /// The manager, for what is asked for once.
    pub fn manager(&self) -> &'a dyn ServiceManager {
        self.manager
    }

    /// Has what happens to `units` noticed before they are read.
    pub fn name(&mut self, units: &[String]) {
        for unit in units {
            self.known.entry(unit.clone()).or_default();
        }
    }

    /// Reads a unit. While nothing happens it is as it was.
    pub async fn state(&mut self, unit: &str) -> Result<UnitState> {
        if !self.live
            && let Some(Some(state)) = self.known.get(unit)
        {
            return Ok(state.clone());
        }
        let state = self.manager.state(unit).await?;
        self.known.insert(unit.to_owned(), Some(state.clone()));
        Ok(state)
    }

    /// Queues a start, as [`ServiceManager::start`] does.
    pub async fn start(&mut self, unit: &str, mode: Mode) -> Result<u32> {
        self.asked = true;
        self.manager.start(unit, mode).await
    }

    /// Queues a stop, as [`ServiceManager::stop`] does.
    pub async fn stop(&mut self, unit: &str) -> Result<()> {
        self.asked = true;
        self.manager.stop(unit, Mode::Replace).await.map(drop)
    }

    /// Takes in what was told meanwhile, and does not wait.
    pub fn refresh(&mut self) {
        self.take_ready();
        self.live = std::mem::take(&mut self.asked);
    }

    /// Has everything read again, whatever was told.
    pub fn read_again(&mut self) {
        self.live = true;
    }

    /// What happened to jobs, each once, of all units.
    pub fn job(&mut self) -> Option<JobEvent> {
        self.take_ready();
        self.jobs.as_mut()?.pop_front()
    }

    /// Returns as soon as something has happened to one of the units, and at the latest after a
    /// second.
    pub async fn changed(&mut self) -> Result<()> {
        self.live = std::mem::take(&mut self.asked);
        let deadline = Instant::now() + LOOK;
        while let Some(event) = self.events.next(deadline - Instant::now()).await {
            if self.concerns(event) {
                self.take_ready();
                self.live = true;
                return Ok(());
            }
        }
        if !self.live {
            self.live = self.differs().await?;
        }
        Ok(())
    }

    /// Waits until nothing more will happen to a unit by itself.
    pub async fn settled(&mut self, unit: &str) -> Result<UnitState> {
        loop {
            let state = self.state(unit).await?;
            if state.is_settled() {
                return Ok(state);
            }
            self.changed().await?;
        }
    }

    fn take_ready(&mut self) {
        while let Some(event) = self.events.ready() {
            if self.concerns(event) {
                self.asked = true;
            }
        }
    }

    /// Whether an event is about one of the units, and news.
    fn concerns(&mut self, event: Event) -> bool {
        match event {
            Event::Job(job) => {
                let concerns = self.find(job.unit()).is_some();
                if let Some(jobs) = &mut self.jobs {
                    jobs.push_back(job);
                }
                concerns
            }
            Event::Changed { unit, now } => match self.find(&unit) {
                Some(Some(state)) => state.summary() != now,
                Some(None) => true,
                None => false,
            },
            Event::Missed => true,
        }
    }

    /// A unit by systemd's name for it, which may be another than ours.
    fn find(&self, unit: &str) -> Option<&Option<UnitState>> {
        self.known.get(unit).or_else(|| {
            self.known.values().find(|state| state.as_ref().is_some_and(|state| state.id == unit))
        })
    }

    /// Whether a unit is doing something else than when it was read.
    async fn differs(&self) -> Result<bool> {
        let read: Vec<(&str, Summary)> = self
            .known
            .iter()
            .filter_map(|(name, state)| Some((name.as_str(), state.as_ref()?.summary())))
            .collect();
        if read.is_empty() {
            return Ok(false);
        }
        let names: Vec<&str> = read.iter().map(|(name, _)| *name).collect();
        let now = self.manager.summaries(&names).await?;
        Ok(read.iter().map(|(_, then)| then).ne(now.iter()))
    }
}
