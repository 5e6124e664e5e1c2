//! The units that a loop watches. A unit is read again after an event about it. In addition, one
//! call a second compares the states of all, in case an event was lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Event, Events, JobEvent, Mode, ServiceManager, Summary, UnitState};

/// How long to wait for an event before all units are compared.
const POLL: Duration = Duration::from_secs(1);

/// The watched units, and the jobs of all units.
pub struct UnitView<'a> {
    manager: &'a dyn ServiceManager,
    events: Events,
    /// The last state that was read; none if the unit is watched but was not read yet.
    known: BTreeMap<String, Option<UnitState>>,
    /// The known states are outdated: [`Self::state`] reads from the manager.
    is_outdated: bool,
    /// A job was queued by this view, or an event arrived: the states will be outdated.
    has_news: bool,
    /// The events of jobs, if requested.
    jobs: Option<VecDeque<JobEvent>>,
}

impl<'a> UnitView<'a> {
    /// A view that receives the events from now on.
    pub async fn new(manager: &'a dyn ServiceManager) -> Result<Self> {
        Ok(Self {
            manager,
            events: manager.events().await?,
            known: BTreeMap::new(),
            is_outdated: true,
            has_news: false,
            jobs: None,
        })
    }

    /// A view that also collects the events of jobs, for [`Self::job`].
    pub async fn with_jobs(manager: &'a dyn ServiceManager) -> Result<Self> {
        Ok(Self { jobs: Some(VecDeque::new()), ..Self::new(manager).await? })
    }

    /// The manager, for calls that need no view.
    pub fn manager(&self) -> &'a dyn ServiceManager {
        self.manager
    }

    /// Watches `units`, which need not have been read.
    pub fn watch(&mut self, units: &[String]) {
        for unit in units {
            self.known.entry(unit.clone()).or_default();
        }
    }

    /// The state of a unit, read again if it may have changed.
    pub async fn state(&mut self, unit: &str) -> Result<UnitState> {
        if !self.is_outdated
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
        self.has_news = true;
        self.manager.start(unit, mode).await
    }

    /// Queues a stop, as [`ServiceManager::stop`] does.
    pub async fn stop(&mut self, unit: &str) -> Result<()> {
        self.has_news = true;
        self.manager.stop(unit, Mode::Replace).await.map(drop)
    }

    /// Handles the events that have arrived, without waiting.
    pub fn handle_events(&mut self) {
        self.take_ready();
        self.is_outdated = std::mem::take(&mut self.has_news);
    }

    /// Marks all states as outdated.
    pub fn mark_outdated(&mut self) {
        self.is_outdated = true;
    }

    /// The next event of a job, of any unit.
    pub fn job(&mut self) -> Option<JobEvent> {
        self.take_ready();
        self.jobs.as_mut()?.pop_front()
    }

    /// Waits for an event about one of the units, for a second at most.
    pub async fn wait_for_change(&mut self) -> Result<()> {
        self.is_outdated = std::mem::take(&mut self.has_news);
        let deadline = Instant::now() + POLL;
        while let Some(event) = self.events.next(deadline - Instant::now()).await {
            if self.concerns(event) {
                self.take_ready();
                self.is_outdated = true;
                return Ok(());
            }
        }
        if !self.is_outdated {
            self.is_outdated = self.differs().await?;
        }
        Ok(())
    }

    /// Waits until a unit is settled: down, without a job, and not waiting for a restart.
    pub async fn wait_until_settled(&mut self, unit: &str) -> Result<UnitState> {
        loop {
            let state = self.state(unit).await?;
            if state.is_settled() {
                return Ok(state);
            }
            self.wait_for_change().await?;
        }
    }

    fn take_ready(&mut self) {
        while let Some(event) = self.events.ready() {
            if self.concerns(event) {
                self.has_news = true;
            }
        }
    }

    /// Whether an event is about one of the units and reports a new state.
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

    /// Finds a unit by systemd's name for it, which may differ from the name it was queried by.
    fn find(&self, unit: &str) -> Option<&Option<UnitState>> {
        self.known.get(unit).or_else(|| {
            self.known.values().find(|state| state.as_ref().is_some_and(|state| state.id == unit))
        })
    }

    /// Whether the state of a unit has changed since it was read.
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
