//! Transactions and jobs, as in systemd (core/transaction.c, core/job.c).

use anyhow::{Result, bail, ensure};
use gitlab_backup::systemd::{ActiveState, JobEvent, Mode};

use super::{State, job};

/// The type of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Start,
    Stop,
}

/// A queued or running job.
#[derive(Debug)]
pub struct Job {
    pub unit: String,
    pub kind: Type,
    pub running: bool,
    /// Whether a start follows, for a restart.
    pub again: bool,
}

/// The jobs of one request. A job without effect is dropped, together with those that only it pulls
/// in, except the requested job itself.
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
    /// Queues a job and those that it pulls in. Returns its id.
    pub(super) fn enqueue(&mut self, unit: &str, kind: Type, mode: Mode) -> Result<u32> {
        let mut transaction = Transaction::default();
        match kind {
            Type::Start => self.add_start(&mut transaction, unit, mode)?,
            Type::Stop => self.add_stop(&mut transaction, unit, mode),
        }
        self.install(transaction, unit, mode, false)
    }

    /// Stops a unit and those that are stopped with it, and starts them again.
    pub(super) fn restart(&mut self, unit: &str) -> Result<u32> {
        let mut transaction = Transaction::default();
        self.add_stop(&mut transaction, unit, Mode::Replace);
        self.install(transaction, unit, Mode::Replace, true)
    }

    /// Restarts a unit that is up. For one that is down, queues a job without effect.
    pub(super) fn try_restart(&mut self, unit: &str) -> Result<()> {
        if !self.units[unit].active.is_down() {
            return self.restart(unit).map(drop);
        }
        let id = self.next_job;
        self.next_job += 1;
        self.emit(&job(JobEvent::New { id, unit: unit.to_owned() }));
        let result = "done".to_owned();
        self.emit(&job(JobEvent::Removed { id, unit: unit.to_owned(), result }));
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
            // Without effect on its dependents.
            self.finish(old, "canceled", false);
        }
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, Job { unit: unit.to_owned(), kind, running: false, again });
        self.unit(unit).job = Some(id);
        self.emit(&job(JobEvent::New { id, unit: unit.to_owned() }));
        self.emit_change(unit);
        id
    }

    /// Ends a job. With `recursive`, a failed start also fails the jobs that depend on it.
    pub(super) fn finish(&mut self, id: u32, result: &str, recursive: bool) {
        let Some(ended) = self.jobs.remove(&id) else { return };
        let unit = ended.unit.clone();
        self.unit(&unit).job = None;
        self.emit_change(&unit);
        let removed = JobEvent::Removed { id, unit: unit.clone(), result: result.to_owned() };
        self.emit(&job(removed));
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

    /// Ends a stop; that of a restart becomes a start.
    pub(super) fn stopped(&mut self, id: u32) {
        let job = self.jobs.get_mut(&id).unwrap();
        if !job.again {
            return self.finish(id, "done", true);
        }
        (job.kind, job.running, job.again) = (Type::Start, false, false);
    }

    /// Ends the job of a unit if the new state decides it.
    pub(super) fn update_job(&mut self, unit: &str, active: ActiveState) {
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

    /// Runs one job that can run. Returns whether there was one.
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

    /// Whether no other job must run first. Stops run before starts, and in the reverse order of
    /// the units.
    fn is_runnable(&self, job: &Job) -> bool {
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
