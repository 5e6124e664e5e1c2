//! A unit: its file, its programs and its state.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use gitlab_backup::systemd::ActiveState;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Systemd;

/// The simulated dependencies, systemd.unit(5).
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

/// A process.
pub struct Process {
    pub systemd: Systemd,
    pub unit: String,
    /// `$SERVICE_RESULT`, `$EXIT_CODE` and `$EXIT_STATUS`, for `ExecStopPost=`.
    pub ended: [String; 3],
    /// The invocation of the unit that it belongs to.
    pub invocation: u32,
}

impl Process {
    /// Sends `READY=1`.
    pub fn ready(&self) {
        self.systemd.ready(&self.unit, self.invocation);
    }
}

/// A program: a function that returns the exit status.
pub type Program = Rc<dyn Fn(Process) -> LocalBoxFuture<'static, i32>>;

/// A program that executes `work`.
pub fn program<F: Future<Output = i32> + 'static>(
    work: impl Fn(Process) -> F + 'static,
) -> Program {
    Rc::new(move |process| Box::pin(work(process)))
}

/// The programs of a unit.
#[derive(Clone)]
pub struct Script {
    pub main: Program,
    /// How long the program runs after SIGTERM; for ever, if none.
    pub stops_in: Option<Duration>,
    pub stop_post: Option<Program>,
    /// A condition that is not met.
    pub condition: Option<String>,
}

impl Script {
    pub fn new(main: Program) -> Self {
        Self { main, stops_in: Some(Duration::ZERO), stop_post: None, condition: None }
    }
}

/// `Type=`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Simple,
    Notify,
    Oneshot,
}

/// The settings of a unit file.
#[derive(Clone)]
pub struct File {
    pub dependencies: BTreeMap<&'static str, Vec<String>>,
    pub kind: Type,
    pub stop_when_unneeded: bool,
    pub remain_after_exit: bool,
    /// Whether `Restart=` applies to failures, and to every end.
    pub restart: (bool, bool),
    pub restart_after: Duration,
    pub start_timeout: Option<Duration>,
    pub stop_timeout: Option<Duration>,
    /// The number of starts that is permitted in a period.
    pub start_limit: (usize, Duration),
    /// For a timer, `OnActiveSec=` and the unit that it starts.
    pub timer: Option<(Duration, String)>,
    /// Whether the unit is removed when it is down.
    pub collect: bool,
}

/// Parses a time span; none for `infinity`.
fn parse_time(text: &str) -> Option<Duration> {
    let (digits, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(60 * number),
        "h" => Duration::from_secs(3600 * number),
        other => panic!("unknown unit of time '{other}'"),
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
            Some(text) => parse_time(&text),
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
                .and_then(|text| parse_time(&text))
                .unwrap_or(Duration::from_millis(100)),
            start_timeout: match kind {
                Type::Oneshot if last("TimeoutStartSec").is_none() => None,
                _ => timeout("TimeoutStartSec", 90),
            },
            stop_timeout: timeout("TimeoutStopSec", 90),
            start_limit: (
                last("StartLimitBurst").map_or(5, |burst| burst.parse().unwrap()),
                interval.map_or(Duration::from_secs(10), |text| {
                    parse_time(&text).unwrap_or(Duration::MAX)
                }),
            ),
            timer: last("OnActiveSec").map(|after| {
                (parse_time(&after).unwrap(), last("Unit").expect("a timer has a unit"))
            }),
            collect: false,
        }
    }
}

/// A unit and its state.
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
    /// Its processes and timeouts.
    pub tasks: Vec<AbortHandle>,
    pub starts: VecDeque<Instant>,
    /// How often the main program was started.
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

    /// Whether another start exceeds the start limit. Counts the start if not.
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
