//! A simulated host with GitLab from source and the units of a configuration. The executor, resume,
//! the pause and the window execute their real code. All other programs only take some time.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use gitlab_backup::config::Config;
use gitlab_backup::config::host::Host as Found;
use gitlab_backup::executor;
use gitlab_backup::gitlab::readiness::Answer;
use gitlab_backup::gitlab::{drain, hold, pause, resume, window};
use gitlab_backup::machine::Base;
use gitlab_backup::paths::{self, RootDirectory};
use gitlab_backup::runs::{Kind, Outcome, Record, paused};
use gitlab_backup::systemd::{ActiveState, Journal, Level, Mode, ServiceManager};
use gitlab_backup::units::{UnitFile, generate};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::kernel::Kernel;
use crate::memory;
use crate::restore;
use crate::systemd::{File, PausedClock, Process, Program, Script, Systemd, program};

pub const RUN: &str = "gitlab-backup-run.service";
pub const RESUME: &str = "gitlab-backup-resume.service";
pub const WINDOW: &str = "gitlab-backup-window.service";
pub const HOLD: &str = "gitlab-backup-hold.service";
pub const PAUSE: &str = "gitlab-backup-pause.service";
pub const DRAIN: &str = "gitlab-backup-drain.service";
pub const BACKGROUND: &str = "gitlab-backup-background.service";
pub const STAGING: &str = "gitlab-backup-staging.service";
pub const TARGET: &str = "gitlab-backup.target";

pub const GITLAB: &str = "gitlab.target";
pub const PUMA: &str = "gitlab-puma.service";
pub const SIDEKIQ: &str = "gitlab-sidekiq.service";
pub const WORKHORSE: &str = "gitlab-workhorse.service";
pub const GITALY: &str = "gitlab-gitaly.service";
pub const MAILROOM: &str = "gitlab-mailroom.service";
pub const ALL: [&str; 6] = [GITLAB, PUMA, SIDEKIQ, WORKHORSE, GITALY, MAILROOM];

/// The dependencies and settings of the units of GitLab 18.9.
const UNITS: [(&str, &str); 6] = [
    (
        GITLAB,
        "Wants=gitlab-puma.service gitlab-sidekiq.service gitlab-workhorse.service \
         gitlab-gitaly.service gitlab-mailroom.service",
    ),
    (
        PUMA,
        "PartOf=gitlab.target\nConflicts=gitlab.service\nStartLimitIntervalSec=11min\nType=notify\nTimeoutStartSec=120\nRestart=on-failure\nRestartSec=1",
    ),
    (
        SIDEKIQ,
        "PartOf=gitlab.target\nStartLimitIntervalSec=11min\nType=notify\nRestart=on-failure\nRestartSec=1",
    ),
    (
        WORKHORSE,
        "PartOf=gitlab.target\nWants=gitlab-puma.service\nAfter=gitlab-puma.service\nRestart=on-failure\nRestartSec=1",
    ),
    (GITALY, "PartOf=gitlab.target\nType=notify\nRestart=on-failure\nRestartSec=1"),
    (MAILROOM, "PartOf=gitlab.target\nRestart=on-failure\nRestartSec=1"),
];

/// The behaviour of a unit's program in a case.
#[derive(Clone, Default)]
struct Behaviour {
    /// How long a start, or the run of a oneshot service, takes.
    takes: Option<Duration>,
    /// The exit statuses of the next starts; then 0.
    ends: VecDeque<i32>,
}

/// A configuration and its units.
struct Planned {
    config: Arc<Config>,
    units: Vec<(UnitFile, File)>,
}

/// Adds that GitLab is stopped, unless the lines say otherwise: most cases are about that.
fn stopping(lines: &str) -> String {
    const STOP: &str = "[gitlab]\nquiesce = \"stop\"\n";
    match lines {
        _ if lines.contains("quiesce") => lines.to_owned(),
        _ if lines.contains("[gitlab]\n") => lines.replacen("[gitlab]\n", STOP, 1),
        _ => format!("{STOP}{lines}"),
    }
}

/// The configuration with these lines, and its units. Cached, because many cases have the same.
fn plan(lines: &str) -> Arc<Planned> {
    let lines = &stopping(lines);
    static PASSWORD: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    static ALL: OnceLock<Mutex<HashMap<String, Arc<Planned>>>> = OnceLock::new();
    let password = PASSWORD.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a password that is long enough\n").unwrap();
        file
    });
    let mut all = ALL.get_or_init(Mutex::default).lock().unwrap();
    let planned = all.entry(lines.to_owned()).or_insert_with(|| {
        let text = format!(
            "{lines}\n[repository]\nlocation = \"/var/backups/gitlab\"\npassword-file = \"{}\"\n",
            password.path().display()
        );
        let source = Path::new("/etc/gitlab-backup/config.toml");
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/source-host");
        let config = Config::parse(&text, source, &Found::new(host));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let units = generate(&config, Path::new("/usr/local/bin/gitlab-backup")).unwrap();
        let parsed = units.into_iter().map(|unit| {
            let file = File::parse(&unit.content);
            (unit, file)
        });
        Arc::new(Planned { units: parsed.collect(), config: Arc::new(config) })
    });
    Arc::clone(planned)
}

/// The simulated host.
pub struct Host {
    pub systemd: Systemd,
    pub config: Arc<Config>,
    /// Removed with the host.
    _place: Rc<TempDir>,
    pub root: Rc<RootDirectory>,
    pub kernel: Kernel,
    behaviours: Rc<RefCell<HashMap<String, Behaviour>>>,
    errors: Rc<RefCell<Vec<(String, String)>>>,
    /// If set, another server answers instead of GitLab, after that time.
    pub other_server: Rc<Cell<Option<Duration>>>,
    /// Time limit of [`Self::wait_until`].
    pub patience: Cell<Duration>,
}

impl Host {
    /// A host with these lines in the configuration, on which GitLab is up.
    pub async fn new(lines: &str) -> Self {
        let place = memory::directory();
        let root = Rc::new(RootDirectory::new(place.path().canonicalize().unwrap()));
        let planned = plan(lines);
        let systemd = Systemd::new();
        let host = Self {
            kernel: Kernel::new(&systemd),
            systemd,
            config: Arc::clone(&planned.config),
            _place: Rc::new(place),
            root,
            behaviours: Rc::default(),
            errors: Rc::default(),
            other_server: Rc::default(),
            patience: Cell::new(Duration::from_secs(1000)),
        };
        for path in [paths::RUNS, paths::RUNTIME] {
            std::fs::create_dir_all(host.root.at(path)).unwrap();
        }
        for (name, text) in UNITS {
            let file = File::parse(text);
            let script = Script::new(host.simulated(name, &file));
            host.systemd.add(name, file, script);
        }
        for (unit, file) in &planned.units {
            let script = host.script(unit, file);
            host.systemd.add(&unit.name, file.clone(), script);
        }
        host.systemd.admin_starts(GITLAB);
        host.wait_until(|host| ALL.iter().all(|unit| host.systemd.is_active(unit))).await;
        host
    }

    /// Adds a unit that is not GitLab's, and starts it.
    pub fn adds(&self, name: &str, text: &str) {
        let file = File::parse(text);
        let script = Script::new(self.simulated(name, &file));
        self.systemd.add(name, file, script);
        self.systemd.admin_starts(name);
    }

    /// Calls `work` with the host's clock and root directory.
    pub async fn with_base<T>(&self, work: impl AsyncFnOnce(Base<'_>) -> T) -> T {
        let (clock, journal) = (PausedClock::of(&self.systemd), Silent);
        work(Base { clock: &clock, journal: &journal, root: &self.root }).await
    }

    /// The path of a file of the host.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.at(path)
    }

    /// Sets how long a start, or the run of a oneshot service, takes.
    pub fn takes(&self, unit: &str, seconds: f64) {
        self.behaviours.borrow_mut().entry(unit.to_owned()).or_default().takes =
            Some(Duration::from_secs_f64(seconds));
    }

    /// Sets the exit statuses of the next starts.
    pub fn ends_with(&self, unit: &str, ends: &[i32]) {
        self.behaviours.borrow_mut().entry(unit.to_owned()).or_default().ends =
            ends.iter().copied().collect();
    }

    /// Simulates a program of GitLab, or one that reads or writes data.
    fn simulated(&self, name: &str, file: &File) -> Program {
        let (behaviours, name) = (Rc::clone(&self.behaviours), name.to_owned());
        let notifies = file.is_notify();
        let stays =
            name == "gitlab-backup-pgsnapshot.service" || !name.starts_with("gitlab-backup");
        program(move |process: Process| {
            let mut all = behaviours.borrow_mut();
            let own = all.entry(name.clone()).or_default();
            let takes = own.takes.unwrap_or(Duration::from_millis(100));
            let status = own.ends.pop_front().unwrap_or(0);
            drop(all);
            async move {
                sleep(takes).await;
                if status != 0 {
                    return status;
                }
                if notifies {
                    process.ready();
                }
                if stays {
                    return std::future::pending().await;
                }
                if notifies {
                    sleep(Duration::from_millis(100)).await;
                }
                0
            }
        })
    }

    /// The programs of a unit.
    fn script(&self, unit: &UnitFile, file: &File) -> Script {
        let name = unit.name.as_str();
        let own = Real {
            systemd: self.systemd.clone(),
            kernel: self.kernel.clone(),
            config: Arc::clone(&self.config),
            root: Rc::clone(&self.root),
            errors: Rc::clone(&self.errors),
            other_server: Rc::clone(&self.other_server),
        };
        let post =
            |main: Program, post: Program| Script { stop_post: Some(post), ..Script::new(main) };
        let plain = || program(|_| async { 0 });
        match name {
            RUN => post(own.clone().execute(), own.conclude()),
            PAUSE => post(own.clone().pause(), own.unpause()),
            WINDOW => Script::new(own.window()),
            HOLD => post(own.clone().hold(), own.release()),
            DRAIN => post(plain(), own.drain(false)),
            BACKGROUND => post(plain(), own.background(false)),
            RESUME => Script::new(own.resume()),
            STAGING => post(own.clone().stage(), own.unstage()),
            restore::RUN => post(own.clone().restore(), own.conclude_restore()),
            restore::PAUSE => post(own.clone().pause(), own.unpause()),
            restore::DRAIN => post(plain(), own.drain(true)),
            restore::BACKGROUND => post(plain(), own.background(true)),
            restore::WINDOW => Script::new(own.restore_window()),
            restore::STAGING => post(plain(), own.unstage_restore()),
            restore::UNDO => Script::new(own.undo(self.simulated(name, file))),
            restore::SWITCH => Script::new(own.switch(self.simulated(name, file))),
            restore::FINISH => Script::new(own.finish(self.simulated(name, file))),
            _ if unit.content.contains("ExecStopPost=") => {
                post(self.simulated(name, file), plain())
            }
            _ => Script::new(self.simulated(name, file)),
        }
    }

    /// Waits until a condition holds. Panics after `patience`.
    pub async fn wait_until(&self, is: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is(self) {
            assert!(
                began.elapsed() < self.patience.get(),
                "the condition never holds: {}; jobs {}; errors {:?}",
                self.busy_units(),
                self.systemd.jobs(),
                self.errors.borrow()
            );
            // Poll often at first and rarely later.
            let pause =
                (began.elapsed() / 500).clamp(Duration::from_millis(20), Duration::from_secs(60));
            sleep(pause).await;
        }
    }

    /// The busy units and their states, for a message.
    pub fn busy_units(&self) -> String {
        self.systemd
            .busy()
            .iter()
            .map(|unit| format!("{unit} {}", self.systemd.sub(unit)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Starts a run.
    pub fn begin(&self) {
        self.systemd.admin_starts(TARGET);
    }

    /// Waits until no unit of this program is busy, and returns the record of the run.
    pub async fn end(&self) -> Record {
        self.wait_until(|host| host.is_over()).await;
        Record::current(&self.root).unwrap().expect("the run has a record")
    }

    /// Executes a run.
    pub async fn run(&self) -> Record {
        self.begin();
        self.end().await
    }

    pub fn is_over(&self) -> bool {
        self.left().is_empty()
    }

    /// Waits until a unit is activating.
    pub async fn wait_until_activating(&self, unit: &str) {
        self.wait_until(|host| host.systemd.active(unit) == ActiveState::Activating).await;
    }

    /// The units that are recorded as paused.
    pub fn paused(&self) -> Option<Vec<String>> {
        let all = paused::load(&self.root).unwrap()?;
        Some(all.into_iter().map(|paused| paused.unit).collect())
    }

    /// Asserts that all of GitLab except `down` is up, no unit is recorded as paused, and no unit
    /// of this program is busy.
    pub fn assert_back(&self, down: &[&str]) {
        for unit in ALL {
            assert_eq!(
                self.systemd.is_active(unit),
                !down.contains(&unit),
                "{unit} is {:?}; {:?}",
                self.systemd.active(unit),
                self.errors.borrow()
            );
        }
        assert_eq!(self.paused(), None, "units are recorded as paused");
        assert!(self.left().is_empty(), "{:?} are left", self.left());
    }

    /// The busy units of this program. Without the timer of the deadline, which continues if the
    /// window did not open, and then starts a target that ends at once.
    fn left(&self) -> Vec<String> {
        let counts = |unit: &String| {
            unit.starts_with("gitlab-backup") && unit != "gitlab-backup-deadline.timer"
        };
        self.systemd.busy().into_iter().filter(counts).collect()
    }

    /// Asserts that GitLab runs, and was never stopped.
    pub fn assert_running(&self) {
        for unit in ALL {
            assert!(self.systemd.is_active(unit), "{unit} does not run");
            assert!(self.systemd.started(unit) <= 1, "{unit} was restarted");
        }
    }

    /// Asserts that the staging directory was removed.
    pub fn assert_clean(&self) {
        assert!(!self.at(paths::STAGING).exists(), "the staging directory was not removed");
    }
}

/// The real code of the program.
#[derive(Clone)]
pub struct Real {
    pub systemd: Systemd,
    kernel: Kernel,
    pub config: Arc<Config>,
    pub root: Rc<RootDirectory>,
    errors: Rc<RefCell<Vec<(String, String)>>>,
    other_server: Rc<Cell<Option<Duration>>>,
}

impl Real {
    /// A program that executes `work`, and fails with status 1 if that fails.
    pub fn program<F: Future<Output = Result<()>> + 'static>(
        self,
        work: impl Fn(Self, Process) -> F + 'static,
    ) -> Program {
        program(move |process| {
            let (errors, unit) = (Rc::clone(&self.errors), process.unit.clone());
            let work = work(self.clone(), process);
            async move {
                match work.await {
                    Ok(()) => 0,
                    Err(error) => {
                        errors.borrow_mut().push((unit, format!("{error:#}")));
                        1
                    }
                }
            }
        })
    }

    fn execute(self) -> Program {
        self.program(|own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            executor::execute(&own.config, base, async || Ok(own.systemd.clone())).await
        })
    }

    fn conclude(self) -> Program {
        self.concludes(Kind::Backup)
    }

    pub fn concludes(self, kind: Kind) -> Program {
        self.program(move |own, process| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            let variable = |name: &str| {
                let at = ["SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"]
                    .iter()
                    .position(|key| *key == name);
                Some(process.ended[at?].clone())
            };
            let later = async |unit: String| own.systemd.start_later(&unit).await;
            let connect = async || Ok(own.systemd.clone());
            executor::conclude(kind, base, variable, false, later, connect).await
        })
    }

    fn pause(self) -> Program {
        self.program(|own, _| async move {
            let alone: Vec<String> =
                own.config.gitlab.stopped_alone.iter().map(ToString::to_string).collect();
            pause::begin(&alone, &own.root, async || Ok(own.systemd.clone())).await
        })
    }

    fn unpause(self) -> Program {
        self.program(|own, _| async move {
            pause::end(async |unit: String| own.systemd.start(&unit, Mode::Replace).await.map(drop))
                .await
        })
    }

    fn drain(self, restore: bool) -> Program {
        self.program(move |own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            drain::drain(&own.config, base.with(&own.systemd), restore).await
        })
    }

    fn background(self, restore: bool) -> Program {
        self.program(move |own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            drain::background(&own.config, base.with(&own.systemd), restore).await
        })
    }

    fn window(self) -> Program {
        self.program(|own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            window::open(&own.config, base.with(&own.systemd), false).await
        })
    }

    fn hold(self) -> Program {
        self.program(|own, process| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            let machine = base.with(&own.systemd);
            hold::hold(&own.config, machine, &own.kernel, || process.ready()).await
        })
    }

    fn release(self) -> Program {
        self.program(|own, _| async move {
            hold::release(&own.root, &own.kernel, async || Ok(own.systemd.clone())).await
        })
    }

    fn resume(self) -> Program {
        self.program(|own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            let answer =
                Server { systemd: own.systemd.clone(), other: Rc::clone(&own.other_server) };
            let settings = resume::Settings {
                readiness: Some(Ok(Box::new(answer) as Box<dyn Answer>)),
                ..resume::Settings::from(&own.config.gitlab)
            };
            resume::resume(&settings, base, &own.kernel, async || Ok(own.systemd.clone())).await
        })
    }

    fn stage(self) -> Program {
        self.program(|own, _| async move {
            std::fs::create_dir_all(own.root.at(paths::STAGING).join("parts"))?;
            // In a real run, preflight records this.
            let runs = |unit: &&str| own.systemd.is_active(unit);
            let units: Vec<String> = ALL.into_iter().filter(runs).map(str::to_owned).collect();
            paused::record_answer(&own.root, own.systemd.is_active(PUMA), &units)
        })
    }

    fn unstage(self) -> Program {
        self.program(
            |own, _| async move { Ok(std::fs::remove_dir_all(own.root.at(paths::STAGING))?) },
        )
    }
}

/// What listens at GitLab's address: GitLab, which answers while Puma runs, or another server.
struct Server {
    systemd: Systemd,
    other: Rc<Cell<Option<Duration>>>,
}

#[async_trait(?Send)]
impl Answer for Server {
    async fn ask(&self) -> Result<()> {
        if let Some(takes) = self.other.get() {
            sleep(takes).await;
            return Ok(());
        }
        anyhow::ensure!(self.systemd.is_active(PUMA), "502 Bad Gateway");
        Ok(())
    }
}

/// A journal that drops all entries.
pub struct Silent;

#[async_trait(?Send)]
impl Journal for Silent {
    async fn last_lines(&self, _: &str, _: Timestamp, _: usize) -> Vec<String> {
        Vec::new()
    }

    fn send(&self, _: Level, _: &str, _: &[(&str, &str)]) {}
}

/// Whether the run is complete.
pub fn is_complete(record: &Record) -> bool {
    record.outcome == Outcome::Complete
}

/// Why the run failed.
pub fn why(record: &Record) -> &str {
    record.failure.as_ref().map_or("", |failure| &failure.reason)
}
