//! A simulation of systemd in memory: transactions, jobs, dependencies and processes, in simulated
//! time. It reads the units that `generate` writes. Their programs are functions.
//!
//! `ExecStop=` runs as `ExecStopPost=` does. It does not simulate: daemon-reload and daemon-reexec,
//! cgroups and freezing, watchdogs, `Restart=` except on-failure and always, calendars, the
//! irreversible jobs of a shutdown, JobTimeoutSec=, aliases, the merging of jobs other than start
//! and stop (a restart is a stop and a start), and sandboxes.

mod jobs;
mod service;
mod unit;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use gitlab_backup::host::clock::Clock;
use gitlab_backup::systemd::{
    ActiveState, Event, Events, JobEvent, Mode, ServiceManager, Summary, UnitState,
};
use jiff::Timestamp;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use self::jobs::Job;
pub use self::jobs::Type as JobType;
use self::unit::{DEPENDENCIES, Unit};
pub use self::unit::{File, Process, Program, Script, Type, program};

/// The initial CLOCK_MONOTONIC, because 0 means never.
const UPTIME: u64 = 1_000_000;

/// The simulated service manager. Clones share its state.
#[derive(Clone)]
pub struct Systemd(Rc<RefCell<State>>);

pub struct State {
    units: BTreeMap<String, Unit>,
    /// By unit, the units that it is ordered after, from After= of one or Before= of the other.
    after: HashMap<String, BTreeSet<String>>,
    /// By unit and dependency, the units that name it.
    named_by: HashMap<String, HashMap<&'static str, Vec<String>>>,
    jobs: BTreeMap<u32, Job>,
    next_job: u32,
    listeners: Vec<UnboundedSender<Event>>,
    /// Whether no events are sent.
    is_mute: bool,
    /// How late the events arrive.
    lateness: Duration,
    began: Instant,
    /// Units that may have become unneeded.
    unneeded: VecDeque<String>,
    /// Units that may be bound to a unit that is down.
    bound: VecDeque<String>,
    calls: u64,
    me: std::rc::Weak<RefCell<State>>,
}

impl Systemd {
    pub fn new() -> Self {
        Self(Rc::new_cyclic(|me| {
            RefCell::new(State {
                units: BTreeMap::new(),
                after: HashMap::new(),
                named_by: HashMap::new(),
                jobs: BTreeMap::new(),
                next_job: 1,
                listeners: Vec::new(),
                is_mute: false,
                lateness: Duration::ZERO,
                began: Instant::now(),
                unneeded: VecDeque::new(),
                bound: VecDeque::new(),
                calls: 0,
                me: me.clone(),
            })
        }))
    }

    /// Changes the state, and executes the jobs that follow.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.borrow_mut();
        let done = work(&mut state);
        state.dispatch();
        done
    }

    /// Adds a unit.
    pub fn add(&self, name: &str, file: File, script: Script) {
        self.with(|state| state.add(name, file, script));
    }

    /// Changes the programs of a unit.
    pub fn script(&self, unit: &str, change: impl FnOnce(&mut Script)) {
        self.with(|state| change(&mut state.unit(unit).script));
    }

    /// Changes the file of a unit.
    pub fn file(&self, unit: &str, change: impl FnOnce(&mut File)) {
        self.with(|state| change(&mut state.unit(unit).file));
    }

    /// Removes the file of a unit, which continues to run.
    pub fn remove_file(&self, unit: &str) {
        self.with(|state| state.unit(unit).load = "not-found");
    }

    /// Sends no events from now on.
    pub fn mute(&self) {
        self.with(|state| state.is_mute = true);
    }

    /// Delays the events of the connections that are opened from now on. The states that are read
    /// are the current ones.
    pub fn delays_events(&self, by: Duration) {
        self.with(|state| state.lateness = by);
    }

    /// Simulates that the connection was lost and restored.
    pub fn interrupt_connection(&self) {
        self.with(|state| state.emit(&Event::Missed));
    }

    /// The active state of a unit.
    pub fn active(&self, unit: &str) -> ActiveState {
        self.0.borrow().units[unit].active
    }

    /// The sub state of a unit.
    pub fn sub(&self, unit: &str) -> &'static str {
        self.0.borrow().units[unit].sub
    }

    pub fn main_pid(&self, unit: &str) -> u32 {
        self.state_of(unit).main_pid
    }

    pub fn is_active(&self, unit: &str) -> bool {
        self.active(unit) == ActiveState::Active
    }

    /// How often the main program of a unit was started.
    pub fn started(&self, unit: &str) -> u32 {
        self.0.borrow().units[unit].started
    }

    /// The units that are not down or have a job.
    pub fn busy(&self) -> Vec<String> {
        let state = self.0.borrow();
        let busy =
            state.units.iter().filter(|(_, unit)| !unit.active.is_down() || unit.job.is_some());
        busy.map(|(name, _)| name.clone()).collect()
    }

    /// All jobs, for a message.
    pub fn jobs(&self) -> String {
        let state = self.0.borrow();
        let jobs = state.jobs.values().map(|job| format!("{} {:?}", job.unit, job.kind));
        jobs.collect::<Vec<_>>().join(", ")
    }

    /// The number of calls.
    pub fn calls(&self) -> u64 {
        self.0.borrow().calls
    }

    /// `systemctl start --no-block`, by an admin.
    pub fn admin_starts(&self, unit: &str) {
        self.with(|state| state.enqueue(unit, JobType::Start, Mode::Replace)).unwrap();
    }

    /// `systemctl stop --no-block`, by an admin.
    pub fn admin_stops(&self, unit: &str) {
        self.with(|state| state.enqueue(unit, JobType::Stop, Mode::Replace)).unwrap();
    }

    /// `systemctl restart --no-block`, by an admin.
    pub fn admin_restarts(&self, unit: &str) {
        self.with(|state| state.restart(unit)).unwrap();
    }

    /// `systemctl try-restart --no-block`, by an admin.
    pub fn admin_try_restarts(&self, unit: &str) {
        self.with(|state| state.try_restart(unit)).unwrap();
    }

    /// Kills all processes of a unit with SIGKILL.
    pub fn kills(&self, unit: &str) {
        self.with(|state| state.kill(unit));
    }

    fn ready(&self, unit: &str, invocation: u32) {
        self.with(|state| state.is_ready(unit, invocation));
    }

    /// The state of a unit as the real systemd would report it.
    fn state_of(&self, name: &str) -> UnitState {
        let state = self.0.borrow();
        let Some(unit) = state.units.get(name) else { return UnitState::absent(name) };
        let lists = state.lists(name);
        UnitState {
            load: unit.load.to_owned(),
            transient: unit.transient,
            active: unit.active,
            sub: unit.sub.to_owned(),
            job: unit.job.unwrap_or(0),
            condition: unit.condition.clone(),
            conditions: unit.script.condition.clone().into_iter().collect(),
            result: unit.result.to_owned(),
            exit_status: unit.exit_status,
            active_enter: unit.active_enter,
            inactive_exit: unit.inactive_exit,
            inactive_enter: unit.inactive_enter,
            invocation: if unit.invocation == 0 {
                String::new()
            } else {
                format!("{:032x}", unit.invocation)
            },
            control_group: match unit.active.is_running() {
                true => format!("/system.slice/{name}"),
                false => String::new(),
            },
            main_pid: match unit.active.is_running() {
                true => {
                    let add = |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte));
                    name.bytes().fold(7, add) % 30_000 * 100 + unit.started
                }
                false => 0,
            },
            uid: (name.starts_with("gitlab-") && !name.starts_with("gitlab-backup")).then_some(990),
            lists,
            ..UnitState::absent(name)
        }
    }
}

impl State {
    fn unit(&mut self, name: &str) -> &mut Unit {
        self.units.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn add(&mut self, name: &str, mut file: File, script: Script) {
        if name.ends_with(".target") {
            // A target has After= for the units that it pulls in.
            for dependency in ["Requires", "Wants", "BindsTo"] {
                let pulled = file.dependencies[dependency].clone();
                file.dependencies.get_mut("After").unwrap().extend(pulled);
            }
        }
        for other in &file.dependencies["After"] {
            self.after.entry(name.to_owned()).or_default().insert(other.clone());
        }
        for other in &file.dependencies["Before"] {
            self.after.entry(other.clone()).or_default().insert(name.to_owned());
        }
        for (dependency, others) in &file.dependencies {
            for other in others {
                let by =
                    self.named_by.entry(other.clone()).or_default().entry(dependency).or_default();
                if !by.iter().any(|known| known == name) {
                    by.push(name.to_owned());
                }
            }
        }
        self.units.insert(name.to_owned(), Unit::new(file, script));
    }

    fn now(&self) -> u64 {
        UPTIME + u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    /// Sends an event.
    fn emit(&mut self, event: &Event) {
        if !self.is_mute {
            self.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        }
    }

    /// The units that `unit` names in this dependency.
    fn named(&self, unit: &str, dependency: &str) -> Vec<String> {
        self.units
            .get(unit)
            .map(|unit| unit.file.dependencies[dependency].clone())
            .unwrap_or_default()
    }

    /// The units that name `unit` in this dependency.
    fn naming(&self, unit: &str, dependency: &'static str) -> Vec<String> {
        let all = self.named_by.get(unit).and_then(|by| by.get(dependency));
        let all = all.map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|name| self.units.contains_key(*name)).cloned().collect()
    }

    fn comes_after(&self, unit: &str, other: &str) -> bool {
        self.after.get(unit).is_some_and(|before| before.contains(other))
    }

    fn lists(&self, name: &str) -> HashMap<String, Vec<String>> {
        let inverse = [
            ("RequiredBy", "Requires"),
            ("WantedBy", "Wants"),
            ("BoundBy", "BindsTo"),
            ("ConsistsOf", "PartOf"),
            ("RequisiteOf", "Requisite"),
        ];
        let mut lists: HashMap<String, Vec<String>> = DEPENDENCIES
            .into_iter()
            .map(|dependency| (dependency.to_owned(), self.named(name, dependency)))
            .collect();
        for (list, dependency) in inverse {
            lists.insert(list.to_owned(), self.naming(name, dependency));
        }
        let after = self.after.get(name).cloned().unwrap_or_default();
        lists.insert("After".to_owned(), after.into_iter().collect());
        lists
    }

    /// Changes the state of a unit, with all consequences.
    fn set(&mut self, name: &str, active: ActiveState, sub: &'static str, restarts: bool) {
        let now = self.now();
        let unit = self.unit(name);
        let before = unit.active;
        (unit.active, unit.sub) = (active, sub);
        if before.is_down() && !active.is_down() {
            unit.inactive_exit = now;
        }
        if !before.is_down() && active.is_down() {
            unit.inactive_enter = now;
        }
        if before != ActiveState::Active && active == ActiveState::Active {
            unit.active_enter = now;
        }
        self.emit_change(name);
        self.update_job(name, active);
        if active.is_down() && !before.is_down() {
            for dependency in ["Requires", "Wants", "BindsTo", "Requisite"] {
                let on = self.named(name, dependency);
                self.unneeded.extend(on);
            }
            let bound = self.naming(name, "BindsTo");
            self.bound.extend(bound);
            if active == ActiveState::Failed && before != ActiveState::Failed && !restarts {
                for unit in self.named(name, "OnFailure") {
                    let _ = self.enqueue(&unit, JobType::Start, Mode::Replace);
                }
            }
            if active == ActiveState::Inactive && self.unit(name).condition.is_none() {
                for unit in self.named(name, "OnSuccess") {
                    let _ = self.enqueue(&unit, JobType::Start, Mode::Replace);
                }
            }
        }
        self.unneeded.push_back(name.to_owned());
        self.bound.push_back(name.to_owned());
        let unit = self.unit(name);
        if active.is_down() && unit.file.collect && unit.job.is_none() {
            self.units.remove(name);
        }
    }

    fn summary(&self, name: &str) -> Summary {
        let Some(unit) = self.units.get(name) else { return UnitState::absent(name).summary() };
        Summary { active: unit.active, sub: unit.sub.to_owned(), job: unit.job.unwrap_or(0) }
    }

    /// Sends the event of a changed unit.
    fn emit_change(&mut self, name: &str) {
        let now = self.summary(name);
        self.emit(&Event::Changed { unit: name.to_owned(), now });
    }

    /// Runs the jobs that can run, and stops units that are unneeded or bound to a unit that is
    /// down.
    fn dispatch(&mut self) {
        loop {
            if self.run_next() {
                continue;
            }
            if let Some(unit) = self.unneeded.pop_front() {
                if self.is_unneeded(&unit) {
                    let _ = self.enqueue(&unit, JobType::Stop, Mode::Fail);
                }
                continue;
            }
            let Some(unit) = self.bound.pop_front() else { return };
            if self.is_bound_to_down_unit(&unit) {
                let _ = self.enqueue(&unit, JobType::Stop, Mode::Replace);
            }
        }
    }

    fn is_unneeded(&self, name: &str) -> bool {
        let Some(unit) = self.units.get(name) else { return false };
        unit.file.stop_when_unneeded
            && unit.active == ActiveState::Active
            && unit.job.is_none()
            && ["Requires", "Wants", "BindsTo", "Requisite"].into_iter().all(|dependency| {
                self.naming(name, dependency).iter().all(|other| {
                    let other = &self.units[other];
                    other.job.is_none() && other.active.is_down()
                })
            })
    }

    fn is_bound_to_down_unit(&self, name: &str) -> bool {
        let Some(unit) = self.units.get(name) else { return false };
        unit.job.is_none()
            && unit.active.is_running()
            && self.named(name, "BindsTo").iter().any(|other| {
                self.units
                    .get(other)
                    .is_none_or(|other| other.job.is_none() && other.active.is_down())
            })
    }
}

#[async_trait(?Send)]
impl ServiceManager for Systemd {
    async fn start(&self, unit: &str, mode: Mode) -> Result<u32> {
        self.count_call();
        self.with(|state| state.enqueue(unit, JobType::Start, mode))
    }

    async fn version(&self) -> Result<u32> {
        Ok(257)
    }

    async fn start_later(&self, unit: &str) -> Result<()> {
        self.start(unit, Mode::Replace).await.map(drop)
    }

    async fn stop(&self, unit: &str, mode: Mode) -> Result<bool> {
        self.count_call();
        self.with(|state| {
            if !state.units.contains_key(unit) {
                return Ok(true);
            }
            match state.enqueue(unit, JobType::Stop, mode) {
                Err(error) if mode == Mode::Fail && error.to_string().contains("destructive") => {
                    Ok(false)
                }
                other => other.map(|_| true),
            }
        })
    }

    async fn kill(&self, unit: &str) -> Result<()> {
        self.count_call();
        self.kills(unit);
        Ok(())
    }

    async fn terminate(&self, unit: &str) -> Result<()> {
        self.count_call();
        self.with(|state| state.terminate(unit));
        Ok(())
    }

    async fn freeze(&self, unit: &str) -> Result<()> {
        bail!("{unit} cannot be frozen here")
    }

    async fn thaw(&self, unit: &str) -> Result<()> {
        bail!("{unit} cannot be thawed here")
    }

    async fn reset_failed(&self, unit: &str) -> Result<()> {
        self.count_call();
        self.with(|state| {
            if let Some(found) = state.units.get_mut(unit) {
                found.starts.clear();
                if found.active == ActiveState::Failed {
                    found.result = "success";
                    state.set(unit, ActiveState::Inactive, "dead", false);
                }
            }
        });
        Ok(())
    }

    async fn keep(&self, unit: &str) -> Result<()> {
        self.count_call();
        ensure!(self.0.borrow().units.contains_key(unit), "Unit {unit} not found.");
        Ok(())
    }

    async fn mark(&self, name: &str, unit: &str) -> Result<()> {
        self.count_call();
        self.with(|state| {
            if !state.units.contains_key(name) {
                let text = format!("PartOf={unit}\nType=oneshot\nRemainAfterExit=yes\n");
                let script = Script::new(program(|_| async { 0 }));
                state.add(name, File { collect: true, ..File::parse(&text) }, script);
                state.unit(name).transient = true;
                state.enqueue(name, JobType::Start, Mode::Replace)?;
            }
            Ok(())
        })
    }

    async fn loaded(&self, prefix: &str) -> Result<Vec<String>> {
        self.count_call();
        let state = self.0.borrow();
        Ok(state.units.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    async fn running_services(&self) -> Result<Vec<String>> {
        self.count_call();
        let state = self.0.borrow();
        let running = state.units.iter().filter(|(name, unit)| {
            name.ends_with(".service") && unit.active.is_running() && unit.sub != "exited"
        });
        Ok(running.map(|(name, _)| name.clone()).collect())
    }

    async fn unit_of(&self, pid: u32) -> Result<String> {
        bail!("process {pid} is of no unit here")
    }

    async fn state(&self, unit: &str) -> Result<UnitState> {
        self.count_call();
        // Other tasks can run during the call.
        tokio::time::sleep(Duration::from_micros(200)).await;
        Ok(self.state_of(unit))
    }

    async fn summaries(&self, units: &[&str]) -> Result<Vec<Summary>> {
        self.count_call();
        let state = self.0.borrow();
        Ok(units.iter().map(|name| state.summary(name)).collect())
    }

    async fn events(&self) -> Result<Events> {
        self.count_call();
        let (sender, events) = Events::channel();
        let lateness = self.0.borrow().lateness;
        let sender = if lateness.is_zero() { sender } else { delayed(sender, lateness) };
        self.0.borrow_mut().listeners.push(sender);
        Ok(events)
    }
}

/// A sender whose events arrive at `receiver` later, in their order.
fn delayed(receiver: UnboundedSender<Event>, by: Duration) -> UnboundedSender<Event> {
    let (sender, mut events) = unbounded_channel();
    let (due_sender, mut due_events) = unbounded_channel();
    tokio::task::spawn_local(async move {
        while let Some(event) = events.recv().await {
            let _ = due_sender.send((Instant::now() + by, event));
        }
    });
    tokio::task::spawn_local(async move {
        while let Some((due, event)) = due_events.recv().await {
            tokio::time::sleep_until(due).await;
            let _ = receiver.send(event);
        }
    });
    sender
}

impl Systemd {
    fn count_call(&self) {
        self.0.borrow_mut().calls += 1;
    }
}

/// The clocks of the simulated time.
pub struct PausedClock(Systemd);

impl PausedClock {
    pub fn of(systemd: &Systemd) -> Self {
        Self(systemd.clone())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let began: Timestamp = "2026-11-30T02:30:00Z".parse().unwrap();
        began + self.0.0.borrow().began.elapsed()
    }

    fn monotonic(&self) -> u64 {
        self.0.0.borrow().now()
    }
}

fn job(event: JobEvent) -> Event {
    Event::Job(event)
}
