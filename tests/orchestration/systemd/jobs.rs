//! Transactions and jobs, as systemd makes and runs them (core/transaction.c, core/job.c).

use anyhow::{Result, bail, ensure};
use gitlab_backup::systemd::{ActiveState, JobEvent, Mode};

use super::{State, job};

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Start,
    Stop,
}

/// A job that is queued or running.
#[derive(Debug)]
pub struct Job {
    pub unit: String,
    pub kind: Type,
    pub running: bool,
    /// Whether a start follows: a restart.
    pub again: bool,
}

/// What is queued together. A job that has nothing to do is dropped, and with it what it alone has
/// pulled in; the one that was asked for stays.
#[derive(Default)]
struct Transaction {
    jobs: Vec<(String, Type)>,
}

impl Transaction {
    fn has(&self, unit: &str, kind: Type) -> bool {
        self.jobs.iter().any(|(name, other)| name == unit && *other == kind)
    }
}

impl State {
    /// Queues a job with all that belongs to it; its number.
    pub(super) fn enqueue(&mut self, unit: &str, kind: Type, mode: Mode) -> Result<u32> {
        let mut transaction = Transaction::default();
        match kind {
            Type::Start => self.add_start(&mut transaction, unit, mode)?,
            Type::Stop => self.add_stop(&mut transaction, unit, mode),
        }
        self.install(transaction, unit, mode, false)
    }

    /// Stops what is to be stopped with it, and starts that again.
    pub(super) fn restart(&mut self, unit: &str) -> Result<u32> {
        let mut transaction = Transaction::default();
        self.add_stop(&mut transaction, unit, Mode::Replace);
        self.install(transaction, unit, Mode::Replace, true)
    }

    /// The same if it runs.
    pub(super) fn try_restart(&mut self, unit: &str) -> Result<()> {
        if !self.units[unit].active.is_down() {
            return self.restart(unit).map(drop);
        }
        // A job with nothing to do.
        let id = self.next_job;
        self.next_job += 1;
        self.tell(&job(JobEvent::New { id, unit: unit.to_owned() }));
        let result = "done".to_owned();
        self.tell(&job(JobEvent::Removed { id, unit: unit.to_owned(), result }));
        Ok(())
    }

    fn add_start(&self, transaction: &mut Transaction, unit: &str, mode: Mode) -> Result<()> {
        if transaction.has(unit, Type::Start) {
            return Ok(());
        }
        let found = self.units.get(unit).filter(|unit| unit.load == "loaded");
        ensure!(found.is_some(), "Unit {unit} not found.");
        transaction.jobs.push((unit.to_owned(), Type::Start));
        let pulls = transaction.jobs.len() == 1 || !self.is_redundant(unit, Type::Start);
        if mode == Mode::IgnoreRequirements || !pulls {
            return Ok(());
        }
        for dependency in ["Requires", "BindsTo"] {
            for other in self.named(unit, dependency) {
                self.add_start(transaction, &other, mode)?;
            }
        }
        for other in self.named(unit, "Wants") {
            let before = transaction.jobs.len();
            if self.add_start(transaction, &other, mode).is_err() {
                transaction.jobs.truncate(before);
            }
        }
        for other in self.named(unit, "Conflicts").into_iter().chain(self.naming(unit, "Conflicts"))
        {
            if self.units.contains_key(&other) {
                self.add_stop(transaction, &other, mode);
            }
        }
        Ok(())
    }

    fn add_stop(&self, transaction: &mut Transaction, unit: &str, mode: Mode) {
        if transaction.has(unit, Type::Stop) {
            return;
        }
        transaction.jobs.push((unit.to_owned(), Type::Stop));
        let pulls = transaction.jobs.len() == 1 || !self.is_redundant(unit, Type::Stop);
        if mode == Mode::IgnoreRequirements || !pulls {
            return;
        }
        for dependency in ["Requires", "BindsTo", "PartOf", "Requisite"] {
            for other in self.naming(unit, dependency) {
                self.add_stop(transaction, &other, mode);
            }
        }
    }

    fn install(
        &mut self,
        transaction: Transaction,
        anchor: &str,
        mode: Mode,
        again: bool,
    ) -> Result<u32> {
        for (unit, kind) in &transaction.jobs {
            let other = if *kind == Type::Start { Type::Stop } else { Type::Start };
            if *kind == Type::Start && transaction.has(unit, other) {
                bail!("Transaction contains conflicting jobs for {unit}.");
            }
        }
        let jobs: Vec<(String, Type)> = transaction
            .jobs
            .into_iter()
            .filter(|(unit, kind)| unit == anchor || !self.is_redundant(unit, *kind))
            .collect();
        if mode == Mode::Fail
            && let Some((unit, _)) = jobs.iter().find(|(unit, kind)| self.conflicts(unit, *kind))
        {
            bail!("Transaction for {anchor} is destructive: {unit} has another job.");
        }
        let mut number = 0;
        for (unit, kind) in jobs {
            let id = self.install_one(&unit, kind, again);
            if unit == anchor {
                number = id;
            }
        }
        Ok(number)
    }

    fn conflicts(&self, unit: &str, kind: Type) -> bool {
        self.units[unit].job.is_some_and(|job| self.jobs[&job].kind != kind)
    }

    fn is_redundant(&self, unit: &str, kind: Type) -> bool {
        let state = &self.units[unit];
        let there = match kind {
            Type::Start => matches!(state.active, ActiveState::Active | ActiveState::Reloading),
            Type::Stop => state.active.is_down(),
        };
        there && !self.conflicts(unit, kind)
    }

    fn install_one(&mut self, unit: &str, kind: Type, again: bool) -> u32 {
        if let Some(old) = self.unit(unit).job {
            if self.jobs[&old].kind == kind {
                self.jobs.get_mut(&old).unwrap().again |= again;
                return old;
            }
            // What depends on it is not told: only its own job is gone.
            self.finish(old, "canceled", false);
        }
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, Job { unit: unit.to_owned(), kind, running: false, again });
        self.unit(unit).job = Some(id);
        self.tell(&job(JobEvent::New { id, unit: unit.to_owned() }));
        self.tell_of(unit);
        id
    }

    /// Ends a job, and fails what waits for a start that has not come about.
    pub(super) fn finish(&mut self, id: u32, result: &str, recursive: bool) {
        let Some(ended) = self.jobs.remove(&id) else { return };
        let unit = ended.unit.clone();
        self.unit(&unit).job = None;
        self.tell_of(&unit);
        let removed = JobEvent::Removed { id, unit: unit.clone(), result: result.to_owned() };
        self.tell(&job(removed));
        if recursive && result != "done" && ended.kind == Type::Start {
            for dependency in ["Requires", "BindsTo", "Requisite"] {
                for other in self.naming(&unit, dependency) {
                    let waits =
                        self.unit(&other).job.filter(|job| self.jobs[job].kind == Type::Start);
                    if let Some(job) = waits {
                        self.finish(job, "dependency", true);
                    }
                }
            }
        }
        self.unneeded.push_back(unit.clone());
        self.bound.push_back(unit);
    }

    /// A stop has come to its end; that of a restart goes on as a start.
    pub(super) fn stopped(&mut self, id: u32) {
        let job = self.jobs.get_mut(&id).unwrap();
        if !job.again {
            return self.finish(id, "done", true);
        }
        (job.kind, job.running, job.again) = (Type::Start, false, false);
    }

    /// Ends the job that has come to what it is for, or cannot any more.
    pub(super) fn job_of_state(&mut self, unit: &str, active: ActiveState) {
        let Some(id) = self.unit(unit).job else { return };
        if !self.jobs[&id].running {
            return;
        }
        match (self.jobs[&id].kind, active) {
            (Type::Start, ActiveState::Active | ActiveState::Reloading) => {
                self.finish(id, "done", true)
            }
            (Type::Start, ActiveState::Inactive) => self.finish(id, "done", true),
            (Type::Start, ActiveState::Failed) => self.finish(id, "failed", true),
            (Type::Stop, ActiveState::Inactive | ActiveState::Failed) => self.stopped(id),
            _ => {}
        }
    }

    /// Runs one job that waits for nothing; whether there was one.
    pub(super) fn run_next(&mut self) -> bool {
        let waiting = self.jobs.iter().filter(|(_, job)| !job.running);
        let free = waiting.filter(|(_, job)| self.is_runnable(job)).map(|(id, _)| *id).next();
        let Some(id) = free else { return false };
        let found = self.jobs.get_mut(&id).unwrap();
        found.running = true;
        let (unit, kind) = (found.unit.clone(), found.kind);
        match kind {
            Type::Start => self.start_unit(id, &unit),
            Type::Stop => self.stop_unit(id, &unit),
        }
        true
    }

    /// Stops go before starts, whatever the order of the units is; among themselves, they go the
    /// other way round.
    fn is_runnable(&self, job: &Job) -> bool {
        // What still goes down cannot be started.
        let goes_down = self.units[&job.unit].active == ActiveState::Deactivating;
        if job.kind == Type::Start && goes_down {
            return false;
        }
        self.jobs.values().filter(|other| other.unit != job.unit).all(|other| {
            let after = self.comes_after(&job.unit, &other.unit);
            let before = self.comes_after(&other.unit, &job.unit);
            match (job.kind, other.kind) {
                (Type::Start, Type::Start) => !after,
                (Type::Start, Type::Stop) => !after && !before,
                (Type::Stop, Type::Stop) => !before,
                (Type::Stop, Type::Start) => true,
            }
        })
    }
}
