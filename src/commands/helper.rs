//! The hidden command `helper`: the programs of the units.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::config::host::Host;
use crate::executor;
use crate::gitlab::hold::{self, Linux};
use crate::gitlab::{drain, freeze, pause, proxy, resume, window};
use crate::host::confined::Confine;
use crate::host::{secret, text};
use crate::machine::{Base, Machine};
use crate::paths::{self, RootDirectory};
use crate::restore;
use crate::run::{calendar, manifest, preflight, prune, report, silence, staging};
use crate::runs::Kind;
use crate::runs::record::read_json;
use crate::runs::restore::Request;
use crate::stores::files::fssnapshot;
use crate::stores::{self, extract, files, postgresql, redis};
use crate::systemd::{Manager, notify, start_later};
use crate::units::render::credential;

use super::{install, verify};

/// The helpers, by unit.
#[derive(Debug, Clone, Subcommand)]
pub enum Helper {
    /// gitlab-backup-run.service
    Execute,
    /// gitlab-backup-run.service, ExecStopPost=
    Conclude {
        /// Start the unit that reports the run.
        #[arg(long)]
        report: bool,
    },
    /// gitlab-backup-calendar.service
    Calendar {
        /// `TIMER=CALENDAR` of each timer.
        #[arg(value_parser = parse_calendar)]
        calendars: Vec<(String, String)>,
    },
    /// gitlab-backup-silence.service
    #[command(subcommand)]
    Silence(BracketCommand),
    /// gitlab-backup-silenced.service
    Silenced,
    /// gitlab-backup-unsilence.service
    Unsilence,
    /// gitlab-backup-report-start.service and gitlab-backup-report.service
    #[command(subcommand)]
    Report(BracketCommand),
    /// gitlab-backup-staging.service
    #[command(subcommand)]
    Staging(BracketCommand),
    /// gitlab-backup-preflight.service
    Preflight,
    /// gitlab-backup-preflight-postgresql.service
    PreflightPostgresql,
    /// Run by `check` as PostgreSQL's user: prints findings as JSON.
    CheckPostgresql,
    /// gitlab-backup-fsplan.service
    Fsplan,
    /// gitlab-backup-presync.service
    Presync,
    /// gitlab-backup-fssnapshot.service
    #[command(subcommand)]
    Fssnapshot(BracketCommand),
    /// gitlab-backup-drain.service, ExecStop=
    Drain {
        /// The window is that of a restore.
        #[arg(long)]
        restore: bool,
    },
    /// gitlab-backup-background.service, ExecStop=
    Background {
        /// The window is that of a restore.
        #[arg(long)]
        restore: bool,
    },
    /// gitlab-backup-pause.service
    Pause {
        /// Stop this unit without its dependents.
        #[arg(long = "stop", value_name = "UNIT")]
        alone: Vec<String>,
    },
    /// gitlab-backup-pause.service, ExecStopPost=
    Unpause,
    /// gitlab-backup-window.service and gitlab-backup-restore-window.service
    Window {
        /// The writers are stopped, even if a backup would freeze them.
        #[arg(long)]
        stopped: bool,
    },
    /// gitlab-backup-window.service, ExecStopPost=
    Thaw,
    /// gitlab-backup-hold.service
    Hold,
    /// gitlab-backup-hold.service, ExecStopPost=
    Release,
    /// gitlab-backup-proxy-NAME.service
    #[command(subcommand)]
    Proxy(ProxyCommand),
    /// gitlab-backup-proxies.service
    #[command(subcommand)]
    Proxies(BracketCommand),
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
    /// Run before NixOS switches its configuration: waits until no backup or restore is running.
    Idle {
        /// The longest wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Executes a program with fewer privileges.
    Confine(Confine),
    /// Run by `verify` and `restore`: extracts a snapshot in a separate process.
    Extract {
        /// The snapshot's id.
        snapshot: String,
        /// The directory to extract into.
        target: PathBuf,
        /// The paths to extract; all if there are none.
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
        /// Stop this unit.
        #[arg(long = "stop", value_name = "UNIT")]
        writers: Vec<String>,
    },
    /// gitlab-backup-restore-keep-down.service
    KeepDown,
}

/// The two commands of a proxy.
#[derive(Debug, Clone, Subcommand)]
pub enum ProxyCommand {
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

/// The two commands of a bracket.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum BracketCommand {
    /// ExecStart=
    Begin,
    /// ExecStopPost=
    End,
}

/// Runs one helper. The helpers that undo a state do not need the configuration: an invalid file
/// must not keep GitLab down.
pub async fn helper(file: &Path, helper: Helper) -> Result<()> {
    let root = &RootDirectory::host();
    let (base, connect) = (Base::host(root), Manager::connect);
    let config = || load(file);
    match helper {
        Helper::Execute => executor::execute(&config()?, base, connect).await,
        Helper::Conclude { report } => conclude(Kind::Backup, report).await,
        Helper::Calendar { calendars } => calendar::reset_changed_timers(calendars, root),
        Helper::Silence(BracketCommand::Begin) => silence::begin(&config()?, base).await,
        Helper::Silence(BracketCommand::End) => silence::end(base, connect, start_unit_later).await,
        Helper::Silenced => silence::ensure_in_effect(&config()?, base, connect).await,
        Helper::Unsilence => silence::unsilence(base, connect).await,
        Helper::Report(BracketCommand::Begin) => {
            report::report_start(&config()?).await;
            Ok(())
        }
        Helper::Report(BracketCommand::End) => report::report_end(&config()?, base, connect).await,
        Helper::Staging(BracketCommand::Begin) => staging::create(load_and_inspect(file), root),
        Helper::Staging(BracketCommand::End) => staging::remove(root),
        Helper::Preflight => preflight::preflight(&config()?, base, connect).await,
        Helper::PreflightPostgresql => postgresql::preflight(&config()?).await,
        Helper::CheckPostgresql => check_postgresql(&config()?).await,
        Helper::Fsplan => files::plan_capture(&config()?, root),
        Helper::Presync => files::presync(&config()?, base),
        Helper::Fssnapshot(BracketCommand::Begin) => fssnapshot::begin(&config()?, root),
        Helper::Fssnapshot(BracketCommand::End) => fssnapshot::end(root),
        Helper::Drain { restore } => {
            let config = config()?;
            on_host(async |machine| drain::drain(&config, machine, restore).await).await
        }
        Helper::Background { restore } => {
            let config = config()?;
            on_host(async |machine| drain::background(&config, machine, restore).await).await
        }
        Helper::Pause { alone } => pause::begin(&alone, root, connect).await,
        Helper::Unpause => pause::end(start_unit_later).await,
        Helper::Window { stopped } => open_window(&config()?, stopped).await,
        // Do not connect to D-Bus without need: at a shutdown it may be down already.
        Helper::Thaw if !freeze::is_on_record(root) => Ok(()),
        Helper::Thaw => on_host(async |machine| freeze::thaw(machine).await).await,
        Helper::Hold => {
            let config = config()?;
            let kernel = Linux { root };
            on_host(async |machine| {
                hold::hold(&config, machine, &kernel, || notify::ready("GitLab is held still"))
                    .await
            })
            .await
        }
        Helper::Release => hold::release(root, &Linux { root }, connect).await,
        Helper::Proxy(ProxyCommand::Start { name }) => proxy::start(config(), root, &name).await,
        Helper::Proxy(ProxyCommand::Stop { name }) => proxy::stop(config(), root, &name).await,
        Helper::Proxies(BracketCommand::Begin) => proxy::adopt(&config()?, root, connect).await,
        Helper::Proxies(BracketCommand::End) => proxy::end_adoption(root),
        Helper::ProxiesDown => proxy::ensure_all_down(&config()?).await,
        Helper::Pgsnapshot => postgresql::hold(&config()?, root, connect).await,
        Helper::Redis => redis::save(&config()?, base).await,
        Helper::FilesLive => files::capture(&config()?, root),
        Helper::Resume => resume::resume(&settings(file), base, &Linux { root }, connect).await,
        Helper::Postgresql => postgresql::dump(&config()?, root).await,
        Helper::Files => files::store_files_and_dumps(&config()?, root, &stores::dumped()),
        Helper::Manifest => manifest::write(&config()?, base),
        Helper::Prune => prune::prune(&config()?, base).await,
        Helper::Verify => verify::newest(&config()?).await,
        Helper::Restore(step) => self::restore(config(), step).await,
        Helper::Secrets => install::create_secrets(&config()?),
        Helper::Idle { wait } => install::idle(Duration::from_secs(wait)).await,
        Helper::Extract { snapshot, target, paths } => {
            // `restore --into` also works on a host without GitLab.
            let config = Config::load_for_repository(&source(file), &Host::new("/"))?;
            extract::extract(&config, root, &snapshot, &target, &paths)
        }
        Helper::Confine(_) => bail!("'confine' must be handled before the runtime is started"),
    }
}

/// Prints the findings about PostgreSQL as JSON.
async fn check_postgresql(config: &Config) -> Result<()> {
    text::out(&text::json(&postgresql::findings(config).await)?);
    Ok(())
}

async fn open_window(config: &Config, stopped: bool) -> Result<()> {
    on_host(async |machine| window::open(config, machine, stopped).await).await
}

/// Runs one helper of a restore.
async fn restore(config: Result<Config>, step: Restore) -> Result<()> {
    let root = &RootDirectory::host();
    let (base, connect) = (Base::host(root), Manager::connect);
    match step {
        Restore::Execute => executor::restore(&config?, base, connect).await,
        Restore::Conclude => conclude(Kind::Restore, false).await,
        Restore::Begin => config.and_then(|_| restore::begin(root)),
        Restore::Unstage => restore::unstage(&config?, base, connect).await,
        Restore::Preflight => {
            restore::preflight(&config?, &Request::asked(root)?, root, connect).await
        }
        Restore::Undo => restore::undo(&config?, base, connect).await,
        Restore::Dumps => restore::extract_dumps(&config?, root),
        Restore::Postgresql => postgresql::load(&config?, root).await,
        Restore::Files => {
            let config = config?;
            files::stage_configuration(&config, root)?;
            files::stage_files(&config, root)
        }
        Restore::Switch => restore::switch(&config?, base, connect).await,
        Restore::Finish => restore::finish(&config?, root).await,
        Restore::Guard { writers } => restore::guard(&writers, config, root, connect).await,
        Restore::KeepDown => proxy::keep_down(&config?, root).await,
    }
}

/// Runs `work` with the host's systemd and root directory.
async fn on_host(work: impl AsyncFnOnce(Machine<'_>) -> Result<()>) -> Result<()> {
    let (manager, root) = (Manager::connect().await?, RootDirectory::host());
    work(Base::host(&root).with(&manager)).await
}

async fn conclude(kind: Kind, report: bool) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let root = RootDirectory::host();
    executor::conclude(
        kind,
        Base::host(&root),
        variable,
        report,
        start_unit_later,
        Manager::connect,
    )
    .await
}

async fn start_unit_later(unit: String) -> Result<()> {
    start_later(&unit).await
}

fn parse_calendar(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(timer, calendar)| (timer.to_owned(), calendar.to_owned()))
        .ok_or_else(|| "TIMER=CALENDAR".to_owned())
}

/// The settings for starting GitLab again; the defaults if the configuration is invalid.
fn settings(file: &Path) -> resume::Settings {
    match load(file) {
        Ok(config) => resume::Settings::from(&config.gitlab),
        Err(error) => {
            tracing::error!(
                "{error:#}: GitLab is started nevertheless, without a check of its readiness"
            );
            resume::Settings::default()
        }
    }
}

/// The configuration with the facts of the host that root found at the start of the run.
fn load(file: &Path) -> Result<Config> {
    let found = secret::given(credential::HOST).unwrap_or_else(|| paths::HOST.into());
    // Most helpers can find the facts themselves.
    let found = read_json(&found).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    Ok(Config::load(&source(file), &Host::new("/").with_found(found))?)
}

/// The configuration with the facts of the host as they are now.
fn load_and_inspect(file: &Path) -> Result<Config> {
    Ok(Config::load(file, &Host::new("/"))?)
}

/// The configuration file: the unit's credential if there is one, because the unit's user may not
/// be able to read `file`.
fn source(file: &Path) -> PathBuf {
    secret::given(credential::CONFIG).unwrap_or_else(|| file.to_owned())
}
