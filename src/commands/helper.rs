//! What the units execute.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::config::host::Host;
use crate::executor;
use crate::gitlab::{freeze, pause, proxy, resume, window};
use crate::host::confined::Confine;
use crate::host::{secret, text};
use crate::machine::{Base, Machine};
use crate::paths::{self, RootDirectory};
use crate::restore;
use crate::run::{calendar, manifest, preflight, prune, report, silence, staging};
use crate::runs::Kind;
use crate::runs::record::read_json;
use crate::runs::restore::Request;
use crate::stores::{extract, files, fssnapshot, postgresql, redis};
use crate::systemd::{Manager, start_later};
use crate::units::render::credential;

use super::{install, verify};

/// The helpers, by unit.
#[derive(Debug, Clone, Subcommand)]
pub enum Helper {
    /// gitlab-backup-run.service
    Execute,
    /// gitlab-backup-run.service, ExecStopPost=
    Conclude {
        /// Have the run reported.
        #[arg(long)]
        report: bool,
    },
    /// gitlab-backup-calendar.service
    Calendar {
        /// `TIMER=CALENDAR`, for each.
        #[arg(value_parser = calendar)]
        calendars: Vec<(String, String)>,
    },
    /// gitlab-backup-silence.service
    #[command(subcommand)]
    Silence(Bracket),
    /// gitlab-backup-silenced.service
    Silenced,
    /// gitlab-backup-unsilence.service
    Unsilence,
    /// gitlab-backup-report-start.service and gitlab-backup-report.service
    #[command(subcommand)]
    Report(Bracket),
    /// gitlab-backup-staging.service
    #[command(subcommand)]
    Staging(Bracket),
    /// gitlab-backup-preflight.service
    Preflight,
    /// gitlab-backup-preflight-postgresql.service
    PreflightPostgresql,
    /// What check has done as PostgreSQL's user: findings as JSON.
    CheckPostgresql,
    /// gitlab-backup-fsplan.service
    Fsplan,
    /// gitlab-backup-presync.service
    Presync,
    /// gitlab-backup-fssnapshot.service
    #[command(subcommand)]
    Fssnapshot(Bracket),
    /// gitlab-backup-pause.service
    Pause {
        /// Stop this one, and nothing along with it.
        #[arg(long = "stop", value_name = "UNIT")]
        alone: Vec<String>,
    },
    /// gitlab-backup-pause.service, ExecStopPost=
    Unpause,
    /// gitlab-backup-window.service and gitlab-backup-restore-window.service
    Window {
        /// The writers are stopped, also where a backup would freeze them.
        #[arg(long)]
        stopped: bool,
    },
    /// gitlab-backup-window.service, ExecStopPost=
    Thaw,
    /// gitlab-backup-proxy-NAME.service
    #[command(subcommand)]
    Proxy(Proxy),
    /// gitlab-backup-proxies.service
    #[command(subcommand)]
    Proxies(Bracket),
    /// gitlab-backup-proxies-down.service
    ProxiesDown,
    /// gitlab-backup-pgsnapshot.service
    Pgsnapshot,
    /// gitlab-backup-redis.service
    Redis,
    /// gitlab-backup-files-live.service
    FilesLive,
    /// gitlab-backup-resume.service
    Resume,
    /// gitlab-backup-postgresql.service
    Postgresql,
    /// gitlab-backup-files.service
    Files,
    /// gitlab-backup-manifest.service
    Manifest,
    /// gitlab-backup-prune.service
    Prune,
    /// gitlab-backup-restore-*.service
    #[command(subcommand)]
    Restore(Restore),
    /// gitlab-backup-verify.service
    Verify,
    /// gitlab-backup-secrets.service of the NixOS module
    Secrets,
    /// Before a switch of NixOS: waits until no backup and no restore is going on.
    Idle {
        /// How long, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Becomes a program that must not do what we may.
    Confine(Confine),
    /// What verify and restore have done in a process of its own.
    Extract {
        /// The snapshot's id.
        snapshot: String,
        /// The directory.
        target: PathBuf,
        /// Everything if there are none.
        paths: Vec<PathBuf>,
    },
}

/// The helpers of a restore, by unit.
#[derive(Debug, Clone, Subcommand)]
pub enum Restore {
    /// gitlab-backup-restore-run.service
    Execute,
    /// gitlab-backup-restore-run.service, ExecStopPost=
    Conclude,
    /// gitlab-backup-restore-staging.service
    Begin,
    /// gitlab-backup-restore-staging.service, ExecStopPost=
    Unstage,
    /// gitlab-backup-restore-preflight.service
    Preflight,
    /// gitlab-backup-restore-undo.service
    Undo,
    /// gitlab-backup-restore-dumps.service
    Dumps,
    /// gitlab-backup-restore-postgresql.service
    Postgresql,
    /// gitlab-backup-restore-files.service
    Files,
    /// gitlab-backup-restore-switch.service
    Switch,
    /// gitlab-backup-restore-finish.service
    Finish,
    /// gitlab-backup-restore-guard.service
    Guard {
        /// Stop this one.
        #[arg(long = "stop", value_name = "UNIT")]
        writers: Vec<String>,
    },
    /// gitlab-backup-restore-keep-down.service
    KeepDown,
}

/// The two commands of a proxy.
#[derive(Debug, Clone, Subcommand)]
pub enum Proxy {
    /// ExecStart=
    Start {
        /// `[[gitlab.proxy]] name`
        name: String,
    },
    /// ExecStop=
    Stop {
        /// `[[gitlab.proxy]] name`
        name: String,
    },
}

/// The two ends of a bracket.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Bracket {
    /// ExecStart=
    Begin,
    /// ExecStopPost=
    End,
}

/// Runs one helper. What undoes a state does not read the configuration: a file that was broken
/// meanwhile must not keep GitLab away.
pub async fn helper(file: &Path, helper: Helper) -> Result<()> {
    let root = &RootDirectory::host();
    let config = || load(file);
    match helper {
        Helper::Execute => executor::execute(&config()?, Base::host(root), Manager::connect).await,
        Helper::Conclude { report } => conclude(Kind::Backup, report).await,
        Helper::Calendar { calendars } => calendar::reset_changed_timers(calendars),
        Helper::Silence(Bracket::Begin) => silence::begin(&config()?).await,
        Helper::Silence(Bracket::End) => silence::end().await,
        Helper::Silenced => silence::settle(&config()?).await,
        Helper::Unsilence => silence::unsilence().await,
        Helper::Report(Bracket::Begin) => report::begun(&config()?).await,
        Helper::Report(Bracket::End) => report::ended(&config()?).await,
        Helper::Staging(Bracket::Begin) => staging::create(afresh(file)),
        Helper::Staging(Bracket::End) => staging::remove(),
        Helper::Preflight => preflight::preflight(&config()?).await,
        Helper::PreflightPostgresql => postgresql::preflight(&config()?).await,
        Helper::CheckPostgresql => {
            text::out(&text::json(&postgresql::findings(&config()?).await)?);
            Ok(())
        }
        Helper::Fsplan => files::plan_capture(&config()?),
        Helper::Presync => files::presync(&config()?),
        Helper::Fssnapshot(Bracket::Begin) => fssnapshot::begin(&config()?),
        Helper::Fssnapshot(Bracket::End) => fssnapshot::end(),
        Helper::Pause { alone } => pause::begin(&alone, root, Manager::connect).await,
        Helper::Unpause => pause::end(later).await,
        Helper::Window { stopped } => {
            let config = config()?;
            on_host(async |machine| window::open(&config, machine, stopped).await).await
        }
        // Nobody is asked for nothing: the bus may be gone, at a shutdown.
        Helper::Thaw if !freeze::is_on_record(root) => Ok(()),
        Helper::Thaw => on_host(async |machine| freeze::thaw(machine).await).await,
        Helper::Proxy(Proxy::Start { name }) => proxy::start(config(), &name).await,
        Helper::Proxy(Proxy::Stop { name }) => proxy::stop(config(), &name).await,
        Helper::Proxies(Bracket::Begin) => proxy::adopt(&config()?).await,
        Helper::Proxies(Bracket::End) => proxy::adopted_end(),
        Helper::ProxiesDown => proxy::all_down(&config()?).await,
        Helper::Pgsnapshot => postgresql::hold(&config()?).await,
        Helper::Redis => redis::save(&config()?).await,
        Helper::FilesLive => files::capture(&config()?),
        Helper::Resume => resume::resume(&settings(file), Base::host(root), Manager::connect).await,
        Helper::Postgresql => postgresql::dump(&config()?).await,
        Helper::Files => files::store_files_and_dumps(&config()?),
        Helper::Manifest => manifest::write(&config()?),
        Helper::Prune => prune::prune(&config()?).await,
        Helper::Verify => verify::newest(&config()?).await,
        Helper::Restore(step) => self::restore(config(), step).await,
        Helper::Secrets => install::first(&config()?),
        Helper::Idle { wait } => install::idle(Duration::from_secs(wait)).await,
        // For a command on a host without GitLab, too.
        Helper::Extract { snapshot, target, paths } => extract::extract(
            &Config::load_for_repository(&source(file), &Host::new("/"))?,
            &snapshot,
            &target,
            &paths,
        ),
        Helper::Confine(_) => bail!("before there is a runtime: see the command line"),
    }
}

/// Those of a restore.
async fn restore(config: Result<Config>, step: Restore) -> Result<()> {
    let root = &RootDirectory::host();
    match step {
        Restore::Execute => executor::restore(&config?, Base::host(root), Manager::connect).await,
        Restore::Conclude => conclude(Kind::Restore, false).await,
        Restore::Begin => config.and_then(|_| restore::begin()),
        Restore::Unstage => restore::unstage(&config?).await,
        Restore::Preflight => restore::preflight(&config?, &Request::asked(root)?).await,
        Restore::Undo => restore::undo(&config?).await,
        Restore::Dumps => restore::extract_dumps(&config?),
        Restore::Postgresql => postgresql::load(&config?).await,
        Restore::Files => {
            let config = config?;
            files::stage_configuration(&config).and_then(|()| files::stage_files(&config))
        }
        Restore::Switch => restore::switch(&config?).await,
        Restore::Finish => restore::finish(&config?).await,
        Restore::Guard { writers } => restore::guard(&writers, config).await,
        Restore::KeepDown => proxy::keep_down(&config?).await,
    }
}

/// Does something on the host.
async fn on_host(work: impl AsyncFnOnce(Machine<'_>) -> Result<()>) -> Result<()> {
    let (manager, root) = (Manager::connect().await?, RootDirectory::host());
    work(Base::host(&root).with(&manager)).await
}

async fn conclude(kind: Kind, report: bool) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let root = RootDirectory::host();
    executor::conclude(kind, Base::host(&root), variable, report, later, Manager::connect).await
}

async fn later(unit: String) -> Result<()> {
    start_later(&unit).await
}

fn calendar(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(timer, calendar)| (timer.to_owned(), calendar.to_owned()))
        .ok_or_else(|| "TIMER=CALENDAR".to_owned())
}

/// How GitLab is brought back: as configured, or else somehow.
fn settings(file: &Path) -> resume::Settings {
    match load(file) {
        Ok(config) => resume::Settings::from(&config.gitlab),
        Err(error) => {
            tracing::error!(
                "{error:#}: GitLab is brought back all the same, but not asked for its readiness"
            );
            resume::Settings::default()
        }
    }
}

/// The configuration, with the host as whoever could see all of it has found it.
fn load(file: &Path) -> Result<Config> {
    let found = secret::given(credential::HOST).unwrap_or_else(|| paths::HOST.into());
    // It can be found again, by most.
    let found = read_json(&found).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    Ok(Config::load(&source(file), &Host::new("/").as_found(found))?)
}

/// The same, with the host as it is now.
fn afresh(file: &Path) -> Result<Config> {
    Ok(Config::load(file, &Host::new("/"))?)
}

/// The configuration's file: the unit's credential where it has one, for its user need not be able
/// to read the other.
fn source(file: &Path) -> PathBuf {
    secret::given(credential::CONFIG).unwrap_or_else(|| file.to_owned())
}
