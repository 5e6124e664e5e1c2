//! A unit: what its file says, what its process does, and how it stands.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use gitlab_backup::systemd::ActiveState;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Systemd;

/// The dependencies that count, systemd.unit(5).
pub const DEPENDENCIES: [&str; 10] = [
    "Requires",
    "Requisite",
    "Wants",
    "BindsTo",
    "PartOf",
    "Conflicts",
    "After",
    "Before",
    "OnFailure",
    "OnSuccess",
];

/// What is begun when a process is.
pub struct Process {
    pub systemd: Systemd,
    pub unit: String,
    /// `$SERVICE_RESULT`, `$EXIT_CODE` and `$EXIT_STATUS`, for what comes after the main process.
    pub ended: [String; 3],
    /// Which start of the unit it belongs to.
    pub invocation: u32,
}

impl Process {
    /// `READY=1`
    pub fn ready(&self) {
        self.systemd.ready(&self.unit, self.invocation);
    }
}

/// What a process does; its exit status.
pub type Program = Rc<dyn Fn(Process) -> LocalBoxFuture<'static, i32>>;

/// A program that does `work`.
pub fn program<F: Future<Output = i32> + 'static>(
    work: impl Fn(Process) -> F + 'static,
) -> Program {
    Rc::new(move |process| Box::pin(work(process)))
}

/// What the processes of a unit do.
#[derive(Clone)]
pub struct Script {
    pub main: Program,
    /// How long it goes on after SIGTERM; for ever, if none.
    pub stops_in: Option<Duration>,
    pub stop_post: Option<Program>,
    /// The condition that is not met.
    pub condition: Option<String>,
}

impl Script {
    pub fn new(main: Program) -> Self {
        Self { main, stops_in: Some(Duration::ZERO), stop_post: None, condition: None }
    }
}

/// How a service gets up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Simple,
    Notify,
    Oneshot,
}

/// What a unit file says.
#[derive(Clone)]
pub struct File {
    pub dependencies: BTreeMap<&'static str, Vec<String>>,
    pub kind: Type,
    pub stop_when_unneeded: bool,
    pub remain_after_exit: bool,
    /// `on-failure` and `always`
    pub restart: (bool, bool),
    pub restart_after: Duration,
    pub start_timeout: Option<Duration>,
    pub stop_timeout: Option<Duration>,
    /// So many starts in so long.
    pub start_limit: (usize, Duration),
    /// Of a timer: when, and what it starts.
    pub timer: Option<(Duration, String)>,
    pub collect: bool,
}

/// A time as systemd writes it; none for `infinity`.
fn time(text: &str) -> Option<Duration> {
    let (digits, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(60 * number),
        "h" => Duration::from_secs(3600 * number),
        other => panic!("a time in '{other}'"),
    })
}

impl File {
    pub fn is_notify(&self) -> bool {
        self.kind == Type::Notify
    }

    pub fn parse(text: &str) -> Self {
        let all = |key: &str| -> Vec<String> {
            let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.flat_map(str::split_whitespace).map(str::to_owned).collect()
        };
        let last = |key: &str| all(key).pop();
        let is = |key: &str| last(key).as_deref() == Some("yes");
        let timeout = |key: &str, default: u64| match last(key) {
            Some(text) => time(&text),
            None => Some(Duration::from_secs(default)),
        };
        let kind = match last("Type").as_deref() {
            Some("notify") => Type::Notify,
            Some("oneshot") => Type::Oneshot,
            _ => Type::Simple,
        };
        let interval = last("StartLimitIntervalSec");
        Self {
            dependencies: DEPENDENCIES.into_iter().map(|key| (key, all(key))).collect(),
            kind,
            stop_when_unneeded: is("StopWhenUnneeded"),
            remain_after_exit: is("RemainAfterExit"),
            restart: match last("Restart").as_deref() {
                Some("on-failure") => (true, false),
                Some("always") => (true, true),
                _ => (false, false),
            },
            restart_after: last("RestartSec")
                .and_then(|text| time(&text))
                .unwrap_or(Duration::from_millis(100)),
            start_timeout: match kind {
                Type::Oneshot if last("TimeoutStartSec").is_none() => None,
                _ => timeout("TimeoutStartSec", 90),
            },
            stop_timeout: timeout("TimeoutStopSec", 90),
            start_limit: (
                last("StartLimitBurst").map_or(5, |burst| burst.parse().unwrap()),
                interval
                    .map_or(Duration::from_secs(10), |text| time(&text).unwrap_or(Duration::MAX)),
            ),
            timer: last("OnActiveSec")
                .map(|after| (time(&after).unwrap(), last("Unit").expect("a timer has a unit"))),
            collect: false,
        }
    }
}

/// A unit, as it stands.
pub struct Unit {
    pub file: File,
    pub script: Script,
    pub load: &'static str,
    pub transient: bool,
    pub active: ActiveState,
    pub sub: &'static str,
    pub job: Option<u32>,
    pub result: &'static str,
    pub exit_status: i32,
    pub condition: Option<String>,
    pub active_enter: u64,
    pub inactive_exit: u64,
    pub inactive_enter: u64,
    pub invocation: u32,
    /// The process that it waits for, and what ends that.
    pub tasks: Vec<AbortHandle>,
    pub starts: VecDeque<Instant>,
    /// How often it was told to start.
    pub started: u32,
}

impl Unit {
    pub fn new(file: File, script: Script) -> Self {
        Self {
            file,
            script,
            load: "loaded",
            transient: false,
            active: ActiveState::Inactive,
            sub: "dead",
            job: None,
            result: "success",
            exit_status: 0,
            condition: None,
            active_enter: 0,
            inactive_exit: 0,
            inactive_enter: 0,
            invocation: 0,
            tasks: Vec::new(),
            starts: VecDeque::new(),
            started: 0,
        }
    }

    /// Whether one more start now is too many.
    pub fn hits_the_limit(&mut self) -> bool {
        let (burst, interval) = self.file.start_limit;
        if interval.is_zero() {
            return false;
        }
        while self.starts.front().is_some_and(|first| first.elapsed() > interval) {
            self.starts.pop_front();
        }
        if self.starts.len() >= burst {
            return true;
        }
        self.starts.push_back(Instant::now());
        false
    }

    pub fn end_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}
