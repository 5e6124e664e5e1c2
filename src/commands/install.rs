//! `install` and `uninstall`: the units on a host.

mod secrets;

use std::collections::BTreeSet;
use std::io::Write;
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
use crate::host::{own, remedy};
use crate::paths::{self, RootDirectory};
use crate::run::installed;
use crate::run::preflight::SYSTEMD_MINIMUM;
use crate::runs::record::write_json;
use crate::runs::restore::{Journal, left};
use crate::systemd::{Manager, Mode, ServiceManager};
use crate::units::render::HEADER;
use crate::units::{self, Plan, Restore, Unit, UnitFile};
use crate::values::UnitName;
use crate::{note, say};

use super::generate::program;

const SYSUSERS: &str = "/etc/sysusers.d/gitlab-backup.conf";
/// What the timer was called, until it was seen that GitLab's module of NixOS has a unit of that
/// name.
const FORMER_TIMER: &str = "gitlab-backup.timer";
/// There, /etc is the configuration's.
const NIXOS: &str = "on NixOS the system's configuration installs and removes this: services.gitlab-backup.enable, and 'nixos-rebuild switch'";
/// What to do about a run that is going on.
const WAIT: &str = "--wait waits for its end";
/// Between two looks at what is going on.
const PAUSE: Duration = Duration::from_millis(500);

/// Options of `install` and `uninstall`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Work on the tree below DIR and leave the running systemd alone.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Do not enable or start the timer.
    #[arg(long)]
    pub no_enable: bool,
    /// Wait for a backup or a restore that is going on, and do not refuse.
    #[arg(long)]
    pub wait: bool,
    /// This program's path in the units, if not the one that runs now.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

/// What an installation changed.
#[derive(Default)]
struct Changes(Vec<String>);

impl Changes {
    fn add(&mut self, what: &str, path: &Path) {
        say!("{what} {}", path.display());
        self.0.push(path.display().to_string());
    }
}

/// Writes what `config` needs and removes what it no longer does.
pub async fn install(config: Config, args: &InstallArgs) -> Result<()> {
    let live = args.root == Path::new("/");
    ensure!(!live || !remedy::is_nixos(), "{}", NIXOS);
    let manager = if live { Some(Manager::connect().await?) } else { None };
    if let Some(manager) = &manager {
        is_new_enough(manager).await?;
    }
    let program = program(args.program.as_deref())?;
    let files = units::generate(&config, &program)?;
    let host = Host::new(&args.root);
    let directory = host.path(installed::DIRECTORY);
    own::make(&directory)?;
    nothing_in_the_way(&directory, &files)?;
    if let Some(manager) = &manager
        && !installed::find_differing(&directory, &files)?.is_empty()
    {
        alone(manager, (!args.wait).then_some(WAIT)).await?;
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
    // First: it is what may be refused.
    secrets::make(&config, &host, live, &mut changes)?;
    let paused = match &manager {
        Some(manager) => pause(manager, &directory, &files, &timers).await?,
        None => Vec::new(),
    };
    let manager = manager.as_ref();
    let laid_out = lay_out(&config, &host, manager, &files, &mut changes);
    if let Err(error) = laid_out.await {
        // Half a way is no reason for no backup.
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
            up(manager, timer).await?;
        }
        let known = |timer: &str| known.iter().any(|known| *known == timer);
        enable(&config, args, manager, &timers, known, &former).await?;
    }
    if changes.0.is_empty() {
        say!("nothing to do: {} units are as they should be", files.len());
    }
    Ok(())
}

async fn is_new_enough(manager: &Manager) -> Result<()> {
    let version = manager.version().await?;
    ensure!(
        version >= SYSTEMD_MINIMUM,
        "systemd {version} is too old: {SYSTEMD_MINIMUM} or newer is needed"
    );
    Ok(())
}

/// Fails if a unit is masked, or is somebody else's.
fn nothing_in_the_way(directory: &Path, files: &[UnitFile]) -> Result<()> {
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let masked = installed::masked(directory, &names);
    ensure!(masked.is_empty(), "masked by somebody: 'systemctl unmask {}' first", masked.join(" "));
    let foreign: Vec<String> = files
        .iter()
        .map(|file| directory.join(&file.name))
        .filter(|path| path.exists() && !installed::is_ours(path))
        .map(|path| path.display().to_string())
        .collect();
    ensure!(
        foreign.is_empty(),
        "not written by gitlab-backup, move away first: {}",
        foreign.join(", ")
    );
    Ok(())
}

/// Writes what is needed and removes what is not any more.
async fn lay_out(
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
        retire(manager, &directory, |name| !wanted.contains(name)).await?;
        release(manager, &directory, |name| !wanted.contains(name)).await?;
    }
    remove(&directory, |name| !wanted.contains(name), changes)?;
    accounts(config, host, manager.is_some(), changes)?;
    // For the units that cannot see all of the host. Each run looks again.
    write_json(&host.path(paths::HOST), &config.found)
}

/// Has systemd start by itself what it is to start.
async fn enable(
    config: &Config,
    args: &InstallArgs,
    manager: &Manager,
    timers: &[String],
    known: impl Fn(&str) -> bool,
    former: &str,
) -> Result<()> {
    // Not a matter of taste: it does nothing unless a restore ended half way.
    manager.enable(&Unit::from(Restore::Guard).to_string()).await?;
    // For what a reboot in the middle of a run leaves; started by the run itself.
    if !args.no_enable && Plan::new(config).needed(Unit::Silence).is_some() {
        manager.enable(&Unit::UnsilenceTimer.to_string()).await?;
    }
    for timer in timers.iter().filter(|_| !args.no_enable) {
        // An admin's wish, unless it is new.
        let state = match known(timer) {
            true => manager.enablement(timer).await?,
            false if *timer == Unit::Timer.to_string() => former.to_owned(),
            false => String::new(),
        };
        if ["disabled", "masked"].iter().any(|off| state.starts_with(off)) {
            say!(
                "{timer} is {state} and stays so: 'systemctl enable --now {timer}' has it start runs again"
            );
            continue;
        }
        manager.enable(timer).await?;
        up(manager, timer).await?;
    }
    Ok(())
}

/// Removes what `install` wrote. What was made for keeping, such as the password and the
/// repository, stays.
pub async fn uninstall(args: &InstallArgs) -> Result<()> {
    ensure!(args.root != Path::new("/") || !remedy::is_nixos(), "{}", NIXOS);
    let directory = Host::new(&args.root).path(installed::DIRECTORY);
    let manager = if args.root == Path::new("/") { Some(Manager::connect().await?) } else { None };
    if let Some(manager) = &manager {
        alone(manager, (!args.wait).then_some(WAIT)).await?;
        if let Some(why) = Journal::half_way(&RootDirectory::host()) {
            bail!("{why}");
        }
        // Nothing else knows what is beside what is live, or removes it.
        let left = left(&RootDirectory::host())?;
        ensure!(left.is_empty(), "{}; after that, uninstall", left.join("; "));
        retire(manager, &directory, |_| true).await?;
        release(manager, &directory, |_| true).await?;
        let guard = Unit::from(Restore::Guard).to_string();
        if directory.join(&guard).exists() {
            manager.disable(&guard).await?;
        }
    }
    let mut changes = Changes::default();
    remove(&directory, |_| true, &mut changes)?;
    // Who installs again means what comes then.
    own::remove(Host::new(&args.root).path(paths::CALENDARS))?;
    let sysusers = Host::new(&args.root).path(SYSUSERS);
    if sysusers.exists() && installed::is_ours(&sysusers) {
        own::remove(&sysusers)?;
        changes.add("removed", &sysusers);
    }
    if let Some(manager) = manager {
        manager.reload().await?;
        // What has failed at last is still listed by systemctl --failed.
        for unit in changes.0.iter().filter_map(|path| Path::new(path).file_name()?.to_str()) {
            manager.reset_failed(unit).await?;
        }
    }
    if changes.0.is_empty() {
        say!("nothing to do: no units of gitlab-backup in {}", directory.display());
    }
    Ok(())
}

/// For a switch of NixOS, which would start GitLab's target and stop what is not in the new system:
/// waits until nothing of ours is at work.
///
/// # Errors
/// With what is, after so long.
pub(super) async fn idle(patience: Duration) -> Result<()> {
    let manager = Manager::connect().await?;
    const LONGER: &str = "services.gitlab-backup.waitBeforeSwitch says how long a switch waits for its end, and NIXOS_NO_CHECK=1 does without";
    match timeout(patience, alone(&manager, None)).await {
        Ok(settled) => settled,
        Err(_) => alone(&manager, Some(LONGER))
            .await
            .context("what GitLab is held for is not to be changed meanwhile"),
    }
}

/// What a run goes by is not changed under it: its window would end too early, or never, or nothing
/// would start GitLab again. Waits for its end, or refuses with what else can be done.
async fn alone(manager: &Manager, refuse: Option<&str>) -> Result<()> {
    let going_on = [
        (Unit::Run, "a backup is going on"),
        (Restore::Run.into(), "a restore is going on"),
        (Unit::Resume, "GitLab is being started again"),
    ];
    for (unit, what) in going_on {
        let mut told = false;
        while !manager.state(&unit.to_string()).await?.is_settled() {
            if let Some(otherwise) = refuse {
                let message = format!("{what}: {otherwise} (systemctl status {unit})");
                return Err(Exit { code: ALREADY_RUNNING, message }.into());
            }
            if !std::mem::replace(&mut told, true) {
                note!("{what}: waiting for its end");
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Stops those of the timers that run and are to be others: one that is reloaded makes up at once
/// for what its new calendar has missed.
async fn pause(
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
    // It is started again by the timers.
    if changed(&calendar) {
        down(manager, &calendar).await?;
    }
    for timer in timers.iter().filter(|timer| changed(timer) || changed(&calendar)) {
        if manager.state(timer).await?.active.is_running() {
            down(manager, timer).await?;
            paused.push(timer.clone());
        }
    }
    Ok(paused)
}

/// Starts a timer, which comes after what looks at its calendar.
async fn up(manager: &Manager, timer: &str) -> Result<()> {
    manager.start(timer, Mode::Replace).await?;
    while manager.state(timer).await?.has_job() {
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn down(manager: &Manager, unit: &str) -> Result<()> {
    manager.stop(unit, Mode::Replace).await?;
    while !manager.state(unit).await?.is_settled() {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Stops and disables our timers that are `unwanted`, while systemd can still read their files.
async fn retire(
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

/// Lets go of our proxies that are `unwanted`: their services go on.
async fn release(
    manager: &Manager,
    directory: &Path,
    unwanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let ours = installed::list_installed(directory)?
        .into_iter()
        .filter(|name| name.starts_with(Proxy::PREFIX) && unwanted(name));
    let units: Vec<UnitName> = ours.filter_map(|name| UnitName::new(name).ok()).collect();
    proxy::let_go(manager, &units).await
}

/// Writes one unit if it differs: staged beside it, synced, renamed.
fn write(directory: &Path, file: &UnitFile, changes: &mut Changes) -> Result<()> {
    let path = directory.join(&file.name);
    if installed::is_as_wanted(directory, file) {
        return Ok(());
    }
    let what = if path.exists() { "updated" } else { "wrote" };
    own::replace(&path, 0o644, true, |to| {
        to.write_all(file.content.as_bytes()).map_err(Into::into)
    })?;
    changes.add(what, &path);
    Ok(())
}

/// Removes units that we wrote and that are `unwanted`.
fn remove(directory: &Path, unwanted: impl Fn(&str) -> bool, changes: &mut Changes) -> Result<()> {
    for name in installed::list_installed(directory)?.into_iter().filter(|name| unwanted(name)) {
        let path = directory.join(name);
        own::remove(&path)?;
        changes.add("removed", &path);
    }
    Ok(())
}

/// What `install` makes besides the units; on NixOS those come from elsewhere.
pub(super) fn first(config: &Config) -> Result<()> {
    secrets::make(config, &Host::new("/"), true, &mut Changes::default())
}

/// The accounts that are made, by systemd-sysusers(8), and what each is for.
fn wanted(config: &Config) -> Vec<(&'static str, &'static str)> {
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

fn accounts(config: &Config, host: &Host, live: bool, changes: &mut Changes) -> Result<()> {
    let path: PathBuf = host.path(SYSUSERS);
    let lines: String = wanted(config)
        .iter()
        .map(|(name, what)| format!("u {name} - \"{what}\" /nonexistent\n"))
        .collect();
    let content = format!("{HEADER}\n{lines}");
    if !own::read(&path).is_ok_and(|old| old == content.as_bytes()) {
        own::make(path.parent().context("no directory")?)?;
        own::replace(&path, 0o644, true, |to| {
            to.write_all(content.as_bytes()).map_err(Into::into)
        })?;
        changes.add("wrote", &path);
    }
    if live {
        let status = std::process::Command::new("systemd-sysusers")
            .arg(&path)
            .status()
            .context("cannot run systemd-sysusers")?;
        if !status.success() {
            bail!("systemd-sysusers could not make the accounts of {}", path.display());
        }
    }
    Ok(())
}
