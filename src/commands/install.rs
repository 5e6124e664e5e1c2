//! `install` and `uninstall`: writes the units to a host, and removes them.

mod secrets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tokio::time::{sleep, timeout};

use crate::accounts;
use crate::config::host::Host;
use crate::config::{Config, Postgresql, Proxy};
use crate::exit::{ALREADY_RUNNING, Exit};
use crate::gitlab::proxy;
use crate::host::{durable, own, remedy};
use crate::paths::{self, RootDirectory};
use crate::run::installed;
use crate::run::preflight::SYSTEMD_MINIMUM;
use crate::runs::record::write_json;
use crate::runs::restore::{RestoreJournal, left};
use crate::systemd::{Manager, Mode, ServiceManager};
use crate::units::render::HEADER;
use crate::units::{self, Plan, Restore, Unit, UnitFile};
use crate::values::UnitName;
use crate::{note, say};

use super::generate::program;

const SYSUSERS: &str = "/etc/sysusers.d/gitlab-backup.conf";
/// The former name of the timer, which conflicted with a unit of NixOS' GitLab module.
const FORMER_TIMER: &str = "gitlab-backup.timer";
/// The refusal on NixOS, which generates /etc.
const NIXOS: &str = "on NixOS the system's configuration installs and removes the units: set \
                     services.gitlab-backup.enable, then 'nixos-rebuild switch'";
/// The remedy for a run that is going on.
const WAIT: &str = "--wait waits for its end";
/// Poll interval.
const PAUSE: Duration = Duration::from_millis(500);

/// Where and when units are installed or removed: the options of `uninstall`.
#[derive(Debug, Args)]
pub struct Installation {
    /// Use DIR as the root directory, and do not contact the running systemd.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Wait for the end of a running backup or restore instead of failing.
    #[arg(long)]
    pub wait: bool,
}

impl Installation {
    /// Whether this is the running host.
    fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// Options of `install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The root directory, and whether to wait.
    #[command(flatten)]
    pub installation: Installation,
    /// Do not enable or start the timer.
    #[arg(long)]
    pub no_enable: bool,
    /// The path of this program in the units. Default: the path of the running program.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

/// The files that an installation changed.
#[derive(Default)]
struct Changes(Vec<String>);

impl Changes {
    fn add(&mut self, what: &str, path: &Path) {
        say!("{what} {}", path.display());
        self.0.push(path.display().to_string());
    }
}

/// Writes the units that `config` needs, removes those that it no longer needs, and enables the
/// timers.
pub async fn install(config: Config, args: &InstallArgs) -> Result<()> {
    let live = args.installation.is_live();
    ensure!(!live || !remedy::is_nixos(), "{}", NIXOS);
    let manager = if live { Some(Manager::connect().await?) } else { None };
    if let Some(manager) = &manager {
        ensure_new_enough(manager).await?;
    }
    let program = program(args.program.as_deref())?;
    let files = units::generate(&config, &program)?;
    let host = Host::new(&args.installation.root);
    let directory = host.path(installed::DIRECTORY);
    own::make(&directory)?;
    ensure_replaceable(&directory, &files)?;
    if let Some(manager) = &manager
        && !installed::find_differing(&directory, &files)?.is_empty()
    {
        wait_until_idle(manager, (!args.installation.wait).then_some(WAIT)).await?;
    }
    let timers: Vec<String> = Plan::new(&config).timers().iter().map(ToString::to_string).collect();
    let known: Vec<&String> =
        timers.iter().filter(|timer| directory.join(timer).exists()).collect();
    let former = match &manager {
        Some(manager) if installed::is_ours(&directory.join(FORMER_TIMER)) => {
            manager.enablement(FORMER_TIMER).await?
        }
        _ => String::new(),
    };
    let mut changes = Changes::default();
    // First, because it may fail.
    secrets::create(&config, &host, live, &mut changes)?;
    let paused = match &manager {
        Some(manager) => pause_timers(manager, &directory, &files, &timers).await?,
        None => Vec::new(),
    };
    let manager = manager.as_ref();
    if let Err(error) = write_units(&config, &host, manager, &files, &mut changes).await {
        // Backups must go on after a failed installation.
        for timer in &paused {
            manager.context("timers run where systemd does")?.start(timer, Mode::Replace).await?;
        }
        return Err(error);
    }
    if let Some(manager) = manager {
        if !changes.0.is_empty() {
            manager.reload().await?;
        }
        for timer in &paused {
            start_timer(manager, timer).await?;
        }
        let known = |timer: &str| known.iter().any(|known| *known == timer);
        enable(&config, args, manager, &timers, known, &former).await?;
    }
    if changes.0.is_empty() {
        say!("nothing to do: {} units are up to date", files.len());
    }
    Ok(())
}

async fn ensure_new_enough(manager: &Manager) -> Result<()> {
    let version = manager.version().await?;
    ensure!(
        version >= SYSTEMD_MINIMUM,
        "systemd {version} is too old: {SYSTEMD_MINIMUM} or newer is needed"
    );
    Ok(())
}

/// Fails if a unit is masked, or if a file of its name was not written by this program.
fn ensure_replaceable(directory: &Path, files: &[UnitFile]) -> Result<()> {
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let masked = installed::masked(directory, &names);
    ensure!(masked.is_empty(), "masked: 'systemctl unmask {}' first", masked.join(" "));
    let foreign: Vec<String> = files
        .iter()
        .map(|file| directory.join(&file.name))
        .filter(|path| path.exists() && !installed::is_ours(path))
        .map(|path| path.display().to_string())
        .collect();
    ensure!(
        foreign.is_empty(),
        "not written by gitlab-backup, move or delete first: {}",
        foreign.join(", ")
    );
    Ok(())
}

/// Writes the units and accounts that are needed, and removes the other units of this program.
async fn write_units(
    config: &Config,
    host: &Host,
    manager: Option<&Manager>,
    files: &[UnitFile],
    changes: &mut Changes,
) -> Result<()> {
    let directory = host.path(installed::DIRECTORY);
    let wanted: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    for file in files {
        write(&directory, file, changes)?;
    }
    if let Some(manager) = manager {
        stop_timers(manager, &directory, |name| !wanted.contains(name)).await?;
        release_proxies(manager, &directory, |name| !wanted.contains(name)).await?;
    }
    remove(&directory, |name| !wanted.contains(name), changes)?;
    create_accounts(config, host, manager.is_some(), changes)?;
    // For the helpers that cannot see all of the host. Each run updates the file.
    write_json(&host.path(paths::HOST), &config.found)
}

/// Enables the units that systemd must start by itself, and starts the timers. Timers that an admin
/// disabled stay disabled: `known` are the timers that were installed before, and `former` is the
/// enablement of the timer under its former name.
async fn enable(
    config: &Config,
    args: &InstallArgs,
    manager: &Manager,
    timers: &[String],
    known: impl Fn(&str) -> bool,
    former: &str,
) -> Result<()> {
    // Always: it does nothing unless a restore ended half way.
    manager.enable(&Unit::from(Restore::Guard).to_string()).await?;
    // Ends silences after a reboot in the middle of a run. Each run starts it.
    if !args.no_enable && Plan::new(config).needed(Unit::Silence).is_some() {
        manager.enable(&Unit::UnsilenceTimer.to_string()).await?;
    }
    for timer in timers.iter().filter(|_| !args.no_enable) {
        let state = match known(timer) {
            true => manager.enablement(timer).await?,
            false if *timer == Unit::Timer.to_string() => former.to_owned(),
            false => String::new(),
        };
        if ["disabled", "masked"].iter().any(|off| state.starts_with(off)) {
            say!(
                "{timer} is {state} and stays so: 'systemctl enable --now {timer}' enables it \
                 again"
            );
            continue;
        }
        manager.enable(timer).await?;
        start_timer(manager, timer).await?;
    }
    Ok(())
}

/// Removes what `install` wrote, except the password and the repository.
pub async fn uninstall(installation: &Installation) -> Result<()> {
    ensure!(!installation.is_live() || !remedy::is_nixos(), "{}", NIXOS);
    let directory = Host::new(&installation.root).path(installed::DIRECTORY);
    let manager = if installation.is_live() { Some(Manager::connect().await?) } else { None };
    if let Some(manager) = &manager {
        wait_until_idle(manager, (!installation.wait).then_some(WAIT)).await?;
        if let Some(why) = RestoreJournal::half_way(&RootDirectory::host()) {
            bail!("{why}");
        }
        // Only the units of a restore can delete the data that it left beside the live data.
        let left = left(&RootDirectory::host())?;
        ensure!(left.is_empty(), "{}; after that, uninstall", left.join("; "));
        stop_timers(manager, &directory, |_| true).await?;
        release_proxies(manager, &directory, |_| true).await?;
        let guard = Unit::from(Restore::Guard).to_string();
        if directory.join(&guard).exists() {
            manager.disable(&guard).await?;
        }
    }
    let mut changes = Changes::default();
    remove(&directory, |_| true, &mut changes)?;
    // A later installation starts with its own calendars.
    own::remove(Host::new(&installation.root).path(paths::CALENDARS))?;
    let sysusers = Host::new(&installation.root).path(SYSUSERS);
    if sysusers.exists() && installed::is_ours(&sysusers) {
        own::remove(&sysusers)?;
        changes.add("removed", &sysusers);
    }
    if let Some(manager) = manager {
        manager.reload().await?;
        // systemctl --failed would still list units that failed.
        for unit in changes.0.iter().filter_map(|path| Path::new(path).file_name()?.to_str()) {
            manager.reset_failed(unit).await?;
        }
    }
    if changes.0.is_empty() {
        say!("nothing to do: no units of gitlab-backup in {}", directory.display());
    }
    Ok(())
}

/// Waits until no backup and no restore is running. Run before NixOS switches its configuration,
/// because a switch starts GitLab's target and stops units that the new system does not have.
///
/// # Errors
/// If one is still running after `patience`.
pub(super) async fn idle(patience: Duration) -> Result<()> {
    let manager = Manager::connect().await?;
    const LONGER: &str = "set a longer services.gitlab-backup.waitBeforeSwitch, or switch with \
                          NIXOS_NO_CHECK=1 without waiting";
    match timeout(patience, wait_until_idle(&manager, None)).await {
        Ok(result) => result,
        Err(_) => wait_until_idle(&manager, Some(LONGER))
            .await
            .context("the system must not be switched during a backup or a restore"),
    }
}

/// Waits for the end of a running backup, restore or resume; with `refuse`, fails instead and names
/// that remedy. Units must not change during a run: its window might end too early or never, or
/// nothing would start GitLab again.
async fn wait_until_idle(manager: &Manager, refuse: Option<&str>) -> Result<()> {
    let going_on = [
        (Unit::Run, "a backup is going on"),
        (Restore::Run.into(), "a restore is going on"),
        (Unit::Resume, "GitLab is being started again"),
    ];
    for (unit, what) in going_on {
        let mut noted = false;
        while !manager.state(&unit.to_string()).await?.is_settled() {
            if let Some(remedy) = refuse {
                let message = format!("{what}: {remedy} (systemctl status {unit})");
                return Err(Exit { code: ALREADY_RUNNING, message }.into());
            }
            if !std::mem::replace(&mut noted, true) {
                note!("{what}: waiting for its end");
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Stops the running timers that will change, and returns them. A running timer that is reloaded
/// with a new calendar would immediately catch up on elapses that it missed.
async fn pause_timers(
    manager: &Manager,
    directory: &Path,
    files: &[UnitFile],
    timers: &[String],
) -> Result<Vec<String>> {
    let mut paused = Vec::new();
    let calendar = Unit::Calendar.to_string();
    let changed = |name: &String| {
        files.iter().any(|file| file.name == *name && !installed::is_as_wanted(directory, file))
    };
    // The timers start it again.
    if changed(&calendar) {
        stop(manager, &calendar).await?;
    }
    for timer in timers.iter().filter(|timer| changed(timer) || changed(&calendar)) {
        if manager.state(timer).await?.active.is_running() {
            stop(manager, timer).await?;
            paused.push(timer.clone());
        }
    }
    Ok(paused)
}

/// Starts a timer, and waits for its job: the timer is ordered after the unit that inspects its
/// calendar.
async fn start_timer(manager: &Manager, timer: &str) -> Result<()> {
    manager.start(timer, Mode::Replace).await?;
    while manager.state(timer).await?.has_job() {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Stops a unit and waits until it has stopped.
async fn stop(manager: &Manager, unit: &str) -> Result<()> {
    manager.stop(unit, Mode::Replace).await?;
    while !manager.state(unit).await?.is_settled() {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Stops and disables the `unwanted` timers. Must be called before their files are removed.
async fn stop_timers(
    manager: &Manager,
    directory: &Path,
    unwanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let timers =
        [Unit::Timer, Unit::VerifyTimer, Unit::UnsilenceTimer].map(|timer| timer.to_string());
    for timer in timers.into_iter().chain([FORMER_TIMER.to_owned()]) {
        if unwanted(&timer) && installed::is_ours(&directory.join(&timer)) {
            manager.stop(&timer, Mode::Replace).await?;
            manager.disable(&timer).await?;
        }
    }
    Ok(())
}

/// Stops the `unwanted` proxy units without stopping their services.
async fn release_proxies(
    manager: &Manager,
    directory: &Path,
    unwanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let ours = installed::list_installed(directory)?
        .into_iter()
        .filter(|name| name.starts_with(Proxy::PREFIX) && unwanted(name));
    let units: Vec<UnitName> = ours.filter_map(|name| UnitName::new(name).ok()).collect();
    proxy::detach(manager, &RootDirectory::host(), &units).await
}

/// Writes one unit file atomically, unless it is up to date.
fn write(directory: &Path, file: &UnitFile, changes: &mut Changes) -> Result<()> {
    let path = directory.join(&file.name);
    if installed::is_as_wanted(directory, file) {
        return Ok(());
    }
    let what = if path.exists() { "updated" } else { "wrote" };
    durable::write(&path, 0o644, &file.content)?;
    changes.add(what, &path);
    Ok(())
}

/// Removes the `unwanted` unit files of this program.
fn remove(directory: &Path, unwanted: impl Fn(&str) -> bool, changes: &mut Changes) -> Result<()> {
    for name in installed::list_installed(directory)?.into_iter().filter(|name| unwanted(name)) {
        let path = directory.join(name);
        own::remove(&path)?;
        changes.add("removed", &path);
    }
    Ok(())
}

/// Creates the repository's directory and password on NixOS, where `install` is not used.
pub(super) fn create_secrets(config: &Config) -> Result<()> {
    secrets::create(config, &Host::new("/"), true, &mut Changes::default())
}

/// The names and descriptions of the accounts that are needed.
fn wanted_accounts(config: &Config) -> Vec<(&'static str, &'static str)> {
    let postgresql = config.postgresql.as_ref();
    let service = postgresql.is_some_and(|postgresql| postgresql.os_user == accounts::SERVICE);
    let loader = postgresql.is_some_and(Postgresql::by_socket);
    let accounts = [
        (service, accounts::SERVICE, "GitLab backup"),
        (true, accounts::SANDBOX, "GitLab backup sandbox"),
        (loader, accounts::LOADER, "GitLab backup loader"),
    ];
    accounts.into_iter().filter_map(|(wanted, name, what)| wanted.then_some((name, what))).collect()
}

/// Writes the configuration for systemd-sysusers(8); if `live`, creates the accounts with it.
fn create_accounts(config: &Config, host: &Host, live: bool, changes: &mut Changes) -> Result<()> {
    let path: PathBuf = host.path(SYSUSERS);
    let lines: String = wanted_accounts(config)
        .iter()
        .map(|(name, what)| format!("u {name} - \"{what}\" /nonexistent\n"))
        .collect();
    let content = format!("{HEADER}\n{lines}");
    if !own::read(&path).is_ok_and(|old| old == content.as_bytes()) {
        own::make(path.parent().context("no directory")?)?;
        durable::write(&path, 0o644, content)?;
        changes.add("wrote", &path);
    }
    if live {
        let status = std::process::Command::new("systemd-sysusers")
            .arg(&path)
            .status()
            .context("cannot run systemd-sysusers")?;
        if !status.success() {
            bail!("systemd-sysusers could not create the accounts of {}", path.display());
        }
    }
    Ok(())
}
