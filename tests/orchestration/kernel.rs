//! A simulated kernel: control groups that can be frozen, and requests in Puma. Unlike the real one
//! it freezes at once, and a frozen service does not keep a stop waiting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use gitlab_backup::gitlab::hold::{self, Member, Work};
use gitlab_backup::runs::held::Listener;
use tokio::time::Instant;

use crate::systemd::Systemd;

/// The simulated kernel.
#[derive(Clone)]
pub struct Kernel {
    systemd: Systemd,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    /// Frozen groups, and how often their unit had been started.
    frozen: BTreeMap<String, u32>,
    /// Every freeze, in order.
    log: Vec<String>,
    /// The main processes of stopped listeners.
    stopped: Vec<u32>,
    /// A request is in progress until then, or until the front is held.
    busy_until: Option<Instant>,
    /// Requests stop coming while this unit is frozen.
    front: Option<String>,
    /// How often the look after the freeze finds a push that has moved its ref.
    half_way: u32,
    /// Puma runs without workers.
    single: bool,
}

/// The unit of a control group.
fn unit(group: &str) -> &str {
    group.rsplit('/').next().unwrap()
}

impl Kernel {
    pub fn new(systemd: &Systemd) -> Self {
        Self { systemd: systemd.clone(), state: Rc::default() }
    }

    /// A request is in progress until then; if there is a `front`, no longer than it takes the
    /// front to be frozen.
    pub fn is_busy(&self, until: Instant, front: Option<&str>) {
        let mut state = self.state.borrow_mut();
        state.busy_until = Some(until);
        state.front = front.map(str::to_owned);
    }

    /// The next looks after a freeze find something in progress.
    pub fn finds_half_way(&self, times: u32) {
        self.state.borrow_mut().half_way = times;
    }

    /// Puma has no workers.
    pub fn is_single(&self) {
        self.state.borrow_mut().single = true;
    }

    /// The frozen units, and the stopped listeners.
    pub fn held(&self) -> Vec<String> {
        let state = self.state.borrow();
        let frozen = state.frozen.keys().filter(|group| hold::Kernel::is_frozen(self, group));
        let stopped = state.stopped.iter().map(|pid| format!("process {pid}"));
        frozen.map(|group| unit(group).to_owned()).chain(stopped).collect()
    }

    /// Every freeze, in order.
    pub fn log(&self) -> Vec<String> {
        self.state.borrow().log.clone()
    }
}

impl hold::Kernel for Kernel {
    fn ensure_freezes(&self) -> Result<()> {
        Ok(())
    }

    fn freeze(&self, group: &str) -> Result<()> {
        let mut state = self.state.borrow_mut();
        state.frozen.insert(group.to_owned(), self.systemd.started(unit(group)));
        state.log.push(unit(group).to_owned());
        Ok(())
    }

    fn thaw(&self, group: &str) -> Result<()> {
        self.state.borrow_mut().frozen.remove(group);
        Ok(())
    }

    fn is_frozen(&self, group: &str) -> bool {
        let started = self.state.borrow().frozen.get(group).copied();
        // A new process has a new group.
        started == Some(self.systemd.started(unit(group)))
            && !self.systemd.active(unit(group)).is_down()
    }

    fn started(&self, _: u32) -> Option<u64> {
        Some(1)
    }

    fn name(&self, pid: u32) -> Option<String> {
        let ssh = self.systemd.main_pid("ssh.service");
        Some(if ssh == pid { "sshd" } else { "other" }.to_owned())
    }

    fn stop(&self, listener: &Listener, stop: bool) -> Result<()> {
        let mut state = self.state.borrow_mut();
        match stop {
            true => state.stopped.push(listener.pid),
            false => state.stopped.retain(|pid| *pid != listener.pid),
        }
        Ok(())
    }

    fn is_puma(&self, group: &str, _: u32) -> bool {
        unit(group) == "gitlab-puma.service" && !self.state.borrow().single
    }

    fn work(&self, member: Member, _: &str, _: u32, exact: bool) -> Result<Work> {
        let mut work = Work::default();
        let mut state = self.state.borrow_mut();
        if member == Member::Puma {
            let is_shut = state
                .front
                .as_ref()
                .is_some_and(|front| state.frozen.keys().any(|group| unit(group) == front));
            if state.busy_until.is_some_and(|until| Instant::now() < until) && !is_shut {
                work.requests.insert(1);
            }
        }
        if member == Member::Gitaly && exact && state.half_way > 0 {
            state.half_way -= 1;
            work.pushes.push(1);
        }
        Ok(work)
    }

    fn feed(&self, _: u32) -> Result<()> {
        Ok(())
    }
}
