//! The states of a unit, as in systemd (core/service.c, core/timer.c).

use std::rc::Rc;
use std::time::Duration;

use gitlab_backup::systemd::{ActiveState, Mode};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::unit::{Process, Program, Type};
use super::{JobType, State, Systemd};

impl State {
    fn systemd(&self) -> Systemd {
        Systemd(self.me.upgrade().expect("systemd lives as long as its tasks"))
    }

    /// Executes `work` after a time, unless the tasks of the unit are ended before.
    fn later(&mut self, name: &str, after: Option<Duration>, work: fn(&mut State, &str)) {
        let Some(after) = after.filter(|after| *after < Duration::from_secs(1 << 32)) else {
            return;
        };
        let (systemd, unit) = (self.systemd(), name.to_owned());
        let task = spawn_local(async move {
            sleep(after).await;
            systemd.with(|state| work(state, &unit));
        });
        self.unit(name).tasks.push(task.abort_handle());
    }

    /// Starts a process, and calls `ended` with its exit status.
    fn spawn(&mut self, name: &str, program: Program, ended: fn(&mut State, &str, i32)) {
        let unit = self.unit(name);
        let (code, status) = match unit.result {
            "signal" => ("killed", if unit.exit_status == 9 { "KILL" } else { "TERM" }.to_owned()),
            _ => ("exited", unit.exit_status.to_string()),
        };
        let about = [unit.result.to_owned(), code.to_owned(), status];
        let process = Process {
            systemd: self.systemd(),
            unit: name.to_owned(),
            ended: about,
            invocation: self.unit(name).invocation,
        };
        let (systemd, unit) = (self.systemd(), name.to_owned());
        let task = spawn_local(async move {
            let status = program(process).await;
            systemd.with(|state| ended(state, &unit, status));
        });
        self.unit(name).tasks.push(task.abort_handle());
    }

    /// Runs a start job.
    pub(super) fn start_unit(&mut self, job: u32, name: &str) {
        let unit = self.unit(name);
        match unit.active {
            ActiveState::Active | ActiveState::Reloading => return self.finish(job, "done", true),
            // Already starting.
            ActiveState::Activating if unit.sub == "auto-restart" => unit.end_tasks(),
            ActiveState::Activating => return,
            ActiveState::Inactive | ActiveState::Failed | ActiveState::Deactivating => {}
        }
        let condition = self.unit(name).script.condition.clone();
        self.unit(name).condition.clone_from(&condition);
        if condition.is_some() {
            return self.finish(job, "done", true);
        }
        if self.unit(name).hits_the_limit() {
            // A failed unit keeps its result.
            let unit = self.unit(name);
            if unit.result == "success" {
                unit.result = "start-limit-hit";
            }
            return self.set(name, ActiveState::Failed, "failed", false);
        }
        let unmet = self.named(name, "BindsTo").into_iter().any(|other| {
            self.comes_after(name, &other)
                && self.units.get(&other).is_none_or(|other| other.active != ActiveState::Active)
        });
        if unmet {
            return self.finish(job, "dependency", true);
        }
        let unit = self.unit(name);
        (unit.result, unit.exit_status) = ("success", 0);
        unit.invocation += 1;
        if name.ends_with(".target") {
            return self.set(name, ActiveState::Active, "active", false);
        }
        if let Some((after, _)) = unit.file.timer.clone() {
            self.set(name, ActiveState::Active, "waiting", false);
            return self.later(name, Some(after), |state, name| state.elapse(name));
        }
        unit.started += 1;
        let (kind, timeout) = (unit.file.kind, unit.file.start_timeout);
        let main = Rc::clone(&unit.script.main);
        self.set(name, ActiveState::Activating, "start", false);
        self.spawn(name, main, |state, name, status| state.main_ended(name, status));
        match kind {
            Type::Simple => self.set(name, ActiveState::Active, "running", false),
            Type::Notify | Type::Oneshot => {
                self.later(name, timeout, |state, name| state.start_timed_out(name));
            }
        }
    }

    pub(super) fn is_ready(&mut self, name: &str, invocation: u32) {
        let unit = self.unit(name);
        if unit.sub == "start" && unit.invocation == invocation {
            self.set(name, ActiveState::Active, "running", false);
        }
    }

    fn start_timed_out(&mut self, name: &str) {
        if self.unit(name).sub == "start" {
            let unit = self.unit(name);
            unit.end_tasks();
            unit.result = "timeout";
            self.stop_post(name);
        }
    }

    /// The timer has elapsed.
    fn elapse(&mut self, name: &str) {
        let Some((_, starts)) = self.unit(name).file.timer.clone() else { return };
        let _ = self.enqueue(&starts, JobType::Start, Mode::Replace);
        self.set(name, ActiveState::Inactive, "dead", false);
    }

    /// The main process has ended.
    fn main_ended(&mut self, name: &str, status: i32) {
        let unit = self.unit(name);
        unit.end_tasks();
        unit.exit_status = status;
        if status != 0 {
            unit.result = "exit-code";
        } else if unit.sub == "start" && unit.file.kind == Type::Notify {
            unit.result = "protocol";
        }
        let up = ["start", "running"].contains(&unit.sub);
        let stays = unit.file.remain_after_exit && status == 0 && up;
        if stays {
            return self.set(name, ActiveState::Active, "exited", false);
        }
        self.stop_post(name);
    }

    /// Runs a stop job.
    pub(super) fn stop_unit(&mut self, job: u32, name: &str) {
        let unit = self.unit(name);
        match (unit.active, unit.sub) {
            (ActiveState::Inactive | ActiveState::Failed, _) => self.stopped(job),
            (ActiveState::Deactivating, _) => {}
            (_, "auto-restart") => {
                unit.end_tasks();
                self.set(name, ActiveState::Inactive, "dead", false);
            }
            (_, "active" | "waiting") => {
                unit.end_tasks();
                self.set(name, ActiveState::Inactive, "dead", false);
            }
            (_, "exited") => self.stop_post(name),
            (_, sub) => {
                // For a oneshot service, SIGTERM is a failure.
                if sub == "start" && unit.file.kind == Type::Oneshot {
                    (unit.result, unit.exit_status) = ("signal", 15);
                }
                let (stops_in, timeout) = (unit.script.stops_in, unit.file.stop_timeout);
                self.set(name, ActiveState::Deactivating, "stop-sigterm", false);
                if stops_in == Some(Duration::ZERO) {
                    return self.main_terminated(name);
                }
                self.later(name, stops_in, |state, name| state.main_terminated(name));
                self.later(name, timeout, |state, name| {
                    state.unit(name).result = "timeout";
                    state.main_terminated(name);
                });
            }
        }
    }

    /// The main process has ended after SIGTERM.
    fn main_terminated(&mut self, name: &str) {
        self.unit(name).end_tasks();
        self.stop_post(name);
    }

    /// The main process gets SIGTERM, and ends with status 1, as Gitaly does.
    pub(super) fn terminate(&mut self, name: &str) {
        let unit = self.unit(name);
        if unit.sub != "running" {
            return;
        }
        let stops_in = unit.script.stops_in;
        self.later(name, stops_in, |state, name| {
            let unit = state.unit(name);
            (unit.result, unit.exit_status) = ("exit-code", 1);
            state.main_terminated(name);
        });
    }

    pub(super) fn kill(&mut self, name: &str) {
        let unit = self.unit(name);
        if !["start", "running", "stop-sigterm", "stop-post"].contains(&unit.sub) {
            return;
        }
        let is_post = unit.sub == "stop-post";
        unit.end_tasks();
        (unit.result, unit.exit_status) = ("signal", 9);
        if is_post { self.finish_stop(name) } else { self.stop_post(name) }
    }

    /// Runs `ExecStopPost=`, if there is one.
    fn stop_post(&mut self, name: &str) {
        self.unit(name).end_tasks();
        match self.unit(name).script.stop_post.clone() {
            None => self.finish_stop(name),
            Some(program) => {
                self.set(name, ActiveState::Deactivating, "stop-post", false);
                self.spawn(name, program, |state, name, status| {
                    let unit = state.unit(name);
                    unit.end_tasks();
                    if status != 0 && unit.result == "success" {
                        (unit.result, unit.exit_status) = ("exit-code", status);
                    }
                    state.finish_stop(name);
                });
            }
        }
    }

    /// All processes have ended: sets the final state, and restarts the unit if it is configured.
    fn finish_stop(&mut self, name: &str) {
        let stopping = self.unit(name).job.is_some_and(|job| self.jobs[&job].kind == JobType::Stop);
        let unit = self.unit(name);
        let failed = unit.result != "success";
        let (on_failure, always) = unit.file.restart;
        let restarts = !stopping && (always || failed && on_failure);
        let after = unit.file.restart_after;
        match failed {
            true => self.set(name, ActiveState::Failed, "failed", restarts),
            false => self.set(name, ActiveState::Inactive, "dead", restarts),
        }
        if restarts && self.unit(name).job.is_none() {
            self.set(name, ActiveState::Activating, "auto-restart", true);
            self.later(name, Some(after), |state, name| {
                // A restart first goes through "inactive".
                let queued = state.enqueue(name, JobType::Start, Mode::Replace);
                if queued.is_ok() {
                    state.set(name, ActiveState::Inactive, "dead", true);
                }
            });
        }
    }
}
