//! `restore`: replaces the live data by a run, or extracts a run into a directory.

mod into;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::BinaryBytes;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::catalog::{Catalog, Whose};
use crate::config::Config;
use crate::exit::{ALREADY_RUNNING, Exit};
use crate::host::{self, remedy, text};
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::Engine;
use crate::runs::restore::{Request, RestoreJournal, RestoreLock, State, left};
use crate::runs::{Kind, Manifest, Record};
use crate::stores;
use crate::systemd::{Manager, Mode, ServiceManager};
use crate::units::{Restore, Unit};
use crate::values::RunId;
use crate::{note, say};

use super::follow::{ensure_succeeded, follow};

/// The values of `--only` for a restore in place: the stores, and the configuration, which is among
/// the files.
fn restorable_parts() -> Vec<&'static str> {
    stores::all().into_iter().map(|store| store.name()).chain(["config"]).collect()
}

/// How long to wait for another command that still holds the lock after its restore has ended.
const TURN: Duration = Duration::from_secs(10);
/// Poll interval.
const PAUSE: Duration = Duration::from_millis(100);

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The run to restore. Default: the newest complete run.
    run: Option<RunId>,
    /// Restore a run of the host with this name instead of this host's.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Extract the run into DIR, an empty or new directory. Changes nothing live.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Restore only these parts: postgresql, redis, files, config; with --into the parts that
    /// 'show' lists.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Restore only this path, as it was on the host: for example one repository or one file.
    #[arg(long, value_name = "PATH", conflicts_with = "only")]
    path: Option<PathBuf>,
    /// Replace configuration and secrets too. By default they are extracted to another directory
    /// and compared.
    #[arg(long)]
    with_config: bool,
    /// Restore a run of another version or edition of GitLab.
    #[arg(long)]
    allow_version_mismatch: bool,
    /// Do not restore the Redis with this name.
    #[arg(long, value_name = "NAME")]
    skip_redis: Vec<String>,
    /// Stop GitLab before everything is extracted and loaded, and not after it.
    #[arg(long, conflicts_with = "into")]
    stop_first: bool,
    /// Undo a restore that was interrupted half way: put the old data back.
    #[arg(
        long,
        conflicts_with_all = ["run", "host", "into", "only", "path", "with_config", "stop_first"]
    )]
    undo: bool,
    /// Keep the restored data after a failed --undo, and delete the old data.
    #[arg(
        long,
        conflicts_with_all = ["run", "host", "into", "only", "path", "with_config", "stop_first", "undo", "dry_run"]
    )]
    keep: bool,
    /// Do nothing; print what would be restored.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Print one JSON object at the end: the record of the restore.
    #[arg(long)]
    json: bool,
}

impl RestoreArgs {
    /// Whether the run is extracted into a directory, and nothing live is changed.
    pub fn is_elsewhere(&self) -> bool {
        self.into.is_some()
    }
}

/// Runs `restore` in one of its forms: in place, `--into`, `--undo` or `--keep`.
pub async fn restore(config: &Config, args: &RestoreArgs) -> Result<()> {
    if args.keep {
        return keep(args).await;
    }
    if args.undo {
        return undo(config, args).await;
    }
    let root = &RootDirectory::host();
    for line in left(root)? {
        note!("note: {line}");
    }
    let engine = open::required(config, root)?;
    let whose = Whose::asked(args.host.as_deref(), args.run.as_ref());
    let mut catalog = Catalog::read(&*engine, whose, root)?;
    if let Some(id) =
        args.run.clone().or_else(|| catalog.complete.last().map(|run| run.manifest.id.clone()))
    {
        catalog = Catalog::read_afresh(&*engine, whose, root, &id)?;
    }
    let manifest = &catalog.pick(args.run.as_ref(), Timestamp::now())?.manifest;
    if !args.skip_redis.is_empty() {
        Request { only: Vec::new(), ..request(manifest, args) }.check_names(manifest)?;
    }
    match &args.into {
        Some(into) => into::extract_into(config, manifest, into, args),
        None => in_place(config, &*engine, manifest, args).await,
    }
}

/// Replaces the live data by a run or a part of it.
async fn in_place(
    config: &Config,
    engine: &dyn Engine,
    manifest: &Manifest,
    args: &RestoreArgs,
) -> Result<()> {
    let parts = restorable_parts();
    if let Some(unknown) = args.only.iter().find(|name| !parts.contains(&name.as_str())) {
        bail!(
            "'{unknown}' is not a part that can be restored in place: {}; --into DIR extracts any \
             part of a run into a directory",
            parts.join(", ")
        );
    }
    if let Some(path) = &args.path {
        ensure_contains(engine, manifest, path)?;
    }
    let request = request(manifest, args);
    request.check_names(manifest)?;
    if manifest.host != host::name() {
        say!("run {} is of host '{}', and this is '{}'", manifest.id, manifest.host, host::name());
    }
    describe(config, manifest, &request);
    if args.dry_run {
        return Ok(());
    }
    let time = manifest.started.strftime("%Y-%m-%d %H:%M:%S UTC");
    start_and_follow(config, Some(request), args, &format!("Replace this data by that of {time}"))
        .await
}

/// Fails unless the files of the run contain `path`.
fn ensure_contains(engine: &dyn Engine, manifest: &Manifest, path: &Path) -> Result<()> {
    let files = manifest.part("files");
    let files = files.filter(|files| files.paths.iter().any(|root| path.starts_with(root)));
    let files = files.with_context(|| {
        format!("{} is not among the files of run {}", text::path(path), manifest.id)
    })?;
    let mut contained = false;
    engine.list(&files.snapshot, &mut |found, _| contained |= found == path)?;
    ensure!(contained, "{} is not in run {}", text::path(path), manifest.id);
    Ok(())
}

/// Puts the old data back after a restore that was interrupted half way.
async fn undo(config: &Config, args: &RestoreArgs) -> Result<()> {
    let Some(journal) = RestoreJournal::load(&RootDirectory::host())? else {
        bail!("no restore ended half way: there is nothing to put back")
    };
    print_loss(&journal)?;
    let what = "Put back the data from before the restore, and lose what was written since";
    start_and_follow(config, None, args, what).await
}

/// Deletes the old data, which `--undo` was to put back.
async fn keep(args: &RestoreArgs) -> Result<()> {
    let journal = RestoreJournal::load(&RootDirectory::host())?
        .context("there is no restore to keep: no old data is left beside the live data")?;
    ensure!(
        journal.state.has_taken_place(),
        "a restore ended half way, so its data cannot be kept: 'gitlab-backup restore' restores \
         again, 'gitlab-backup restore --undo' puts the old data back"
    );
    if !args.yes {
        confirm("Delete the data from before the restore")?;
    }
    let manager = Manager::connect().await?;
    let _lock = RestoreLock::take(&RootDirectory::host())?
        .ok_or_else(|| busy("another 'gitlab-backup restore' is at work: wait for it"))?;
    refuse_if_busy(&manager).await?;
    RestoreJournal::request_undo(&RootDirectory::host(), false)?;
    let finish = Unit::from(Restore::Finish).to_string();
    manager.reset_failed(&finish).await?;
    manager.start(&finish, Mode::Replace).await?;
    while !manager.state(&finish).await?.is_settled() {
        sleep(PAUSE).await;
    }
    ensure!(
        RestoreJournal::load(&RootDirectory::host())?.is_none(),
        "the old data was not deleted: journalctl -u {finish}"
    );
    say!("the restored data is kept");
    Ok(())
}

/// Prints the data that is lost if the restore of `journal` is undone.
fn print_loss(journal: &RestoreJournal) -> Result<()> {
    journal.ensure_undoable()?;
    let plan = &journal.plan;
    let run = plan.run.as_ref().map_or("a run", RunId::as_str);
    let since = journal.switched.unwrap_or(journal.started).strftime("%Y-%m-%d %H:%M:%S UTC");
    match journal.state {
        State::Switched => {
            say!(
                "run {run} is in place, and GitLab may have used it since {since}. Data written \
                 since then is LOST by --undo:"
            );
        }
        State::Switching => {
            say!(
                "the restore of run {run} ended half way. If GitLab was started since {since}, \
                 what was written then is LOST:"
            )
        }
        State::Staging | State::Finishing => return Ok(()),
    }
    for database in &plan.databases {
        say!("  postgresql  every row of {}", database.database.name);
    }
    for redis in &plan.redis {
        say!("  redis       every key of {}", redis.name);
    }
    for root in plan.layouts.iter().flat_map(|layout| &layout.roots) {
        say!("  files       every commit and file in {}", root.path.display());
    }
    Ok(())
}

fn request(manifest: &Manifest, args: &RestoreArgs) -> Request {
    Request {
        run: Some(manifest.id.clone()),
        only: args.only.clone(),
        path: args.path.clone(),
        with_config: args.with_config,
        allow_version_mismatch: args.allow_version_mismatch,
        skip_redis: args.skip_redis.clone(),
        stop_first: args.stop_first,
    }
}

/// Prints what would be restored, as far as the manifest says.
fn describe(config: &Config, manifest: &Manifest, request: &Request) {
    say!("run {} of {}:", manifest.id, manifest.host);
    if let Some(path) = &request.path {
        say!("  files       {}", path.display());
        return;
    }
    if request.wants("postgresql") {
        for database in &manifest.databases {
            say!(
                "  postgresql  {:>11}  {}",
                BinaryBytes(database.bytes).to_string(),
                database.name
            );
        }
    }
    for part in &manifest.parts {
        let bytes = BinaryBytes(part.bytes).to_string();
        if part.name == "redis" && request.wants("redis") {
            let names = manifest
                .versions
                .iter()
                .filter_map(|component| component.name.strip_prefix("redis-"));
            let names: Vec<&str> =
                names.filter(|name| !request.skip_redis.iter().any(|skip| skip == name)).collect();
            say!("  redis       {bytes:>11}  {}", names.join(", "));
        }
        if part.name == "files" {
            for path in &part.paths {
                let configuration = config.files.configuration.contains(path);
                let word = match (configuration, request.wants("config"), request.wants("files")) {
                    (true, true, _) => "config",
                    (true, false, true) => "(beside)",
                    (false, _, true) => "files",
                    (_, _, false) => continue,
                };
                say!("  {word:<11} {:>11}  {}", "", path.display());
            }
        }
    }
}

/// Asks for confirmation of `what`, starts the restore and follows it. Without a `request`, the
/// restore is an undo.
async fn start_and_follow(
    config: &Config,
    request: Option<Request>,
    args: &RestoreArgs,
    what: &str,
) -> Result<()> {
    let manager = Manager::connect().await?;
    let executor = Unit::from(Restore::Run).to_string();
    let state = manager.state(&executor).await?;
    ensure!(state.load == "loaded", "{executor} is not installed: '{}' first", remedy::install());
    refuse_if_busy(&manager).await?;
    if let Some(request) =
        request.as_ref().filter(|request| request.path.is_some() || !request.only.is_empty())
    {
        refuse_if_used(config, &manager, request).await?;
    }
    let before = Record::last(&RootDirectory::host(), Kind::Restore)?;
    if !args.yes {
        confirm(&format!("GitLab is stopped during the restore. {what}"))?;
    }
    let lock = lock_restore(&manager).await?;
    let last = Record::last(&RootDirectory::host(), Kind::Restore)?;
    ensure!(
        last.as_ref().map(|record| (&record.id, record.started))
            == before.as_ref().map(|record| (&record.id, record.started)),
        "another restore has ended meanwhile: nothing was done; see 'gitlab-backup status', then \
         try again"
    );
    let undo = Request {
        run: None,
        only: Vec::new(),
        path: None,
        with_config: false,
        allow_version_mismatch: false,
        skip_redis: Vec::new(),
        stop_first: true,
    };
    manager.keep(&executor).await?;
    manager.reset_failed(&executor).await?;
    request.unwrap_or(undo).leave(&RootDirectory::host(), &lock)?;
    let followed = async {
        manager.start(&Unit::from(Restore::Target).to_string(), Mode::Replace).await?;
        follow(&manager, Kind::Restore, before.as_ref()).await
    };
    let followed = followed.await;
    Request::withdraw(&RootDirectory::host(), &lock)?;
    report(args, &followed?)
}

/// Prints the result of a restore or an undo. Fails if it failed.
fn report(args: &RestoreArgs, record: &Record) -> Result<()> {
    if args.json {
        text::out(&text::json(record)?);
    }
    for warning in &record.warnings {
        note!("note: {warning}");
    }
    if let Some(why) = RestoreJournal::half_way(&RootDirectory::host()) {
        note!("GITLAB IS DOWN: {why}");
    } else if args.undo
        && RestoreJournal::load(&RootDirectory::host())?.is_some_and(|journal| journal.undo)
    {
        for line in left(&RootDirectory::host())? {
            note!("note: {line}");
        }
    }
    ensure_succeeded(if args.undo { "the undo" } else { "the restore" }, record)?;
    let downtime = record.away();
    match args.undo {
        true => note!("the data from before the restore is back; GitLab was down for {downtime}"),
        false => note!("run {} is restored; GitLab was down for {downtime}", record.id),
    }
    Ok(())
}

/// Takes the lock to request a restore, unless a backup or a restore is running: another command
/// may have started one while this one waited for confirmation. A command that follows a restore
/// holds the lock until shortly after its end.
async fn lock_restore(manager: &Manager) -> Result<RestoreLock> {
    let started = Instant::now();
    loop {
        let lock = RestoreLock::take(&RootDirectory::host())?;
        refuse_if_busy(manager).await?;
        match lock {
            Some(lock) => return Ok(lock),
            None if started.elapsed() > TURN => {
                return Err(busy("another restore has been requested: wait for it"));
            }
            None => sleep(PAUSE).await,
        }
    }
}

/// Fails if a backup or a restore is running.
async fn refuse_if_busy(manager: &Manager) -> Result<()> {
    for (unit, message) in [
        (Unit::Run, "a backup is going on: wait for it, or 'systemctl stop gitlab-backup.target'"),
        (Restore::Run.into(), "a restore is going on: wait for it"),
    ] {
        if !manager.state(&unit.to_string()).await?.is_settled() {
            return Err(busy(message));
        }
    }
    Ok(())
}

fn busy(message: &str) -> anyhow::Error {
    Exit { code: ALREADY_RUNNING, message: message.to_owned() }.into()
}

/// Fails if an admin has started GitLab with the data of a half-finished restore. The next restore
/// first undoes the unfinished one, so that a restore of only some parts would lose the data that
/// was written to the others since.
async fn refuse_if_used(config: &Config, manager: &Manager, request: &Request) -> Result<()> {
    let half_way = RestoreJournal::load(&RootDirectory::host())?
        .is_some_and(|journal| journal.state == State::Switching);
    let mut running = Vec::new();
    for writer in config.gitlab.writers.iter().filter(|_| half_way) {
        if manager.state(writer.as_str()).await?.active.is_running() {
            running.push(writer.as_str());
        }
    }
    let what = request
        .path
        .as_ref()
        .map_or_else(|| request.only.join(", "), |path| path.display().to_string());
    ensure!(
        running.is_empty(),
        "a restore ended half way, and {} run with its data: a restore of only {what} would put \
         the old data back and lose what was written since. 'gitlab-backup restore --undo' does \
         that after confirmation; 'gitlab-backup restore RUN' restores everything again",
        running.join(", ")
    );
    Ok(())
}

/// Asks for confirmation of `what`. Fails if the answer is not `yes`.
fn confirm(what: &str) -> Result<()> {
    ensure!(std::io::stdin().is_terminal(), "stdin is not a terminal: pass --yes to confirm");
    // Needs no escaping: `what` contains no data from the repository.
    #[expect(clippy::print_stderr, reason = "the answer is typed on the same line")]
    {
        eprint!("{what}? Type 'yes': ");
    }
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    ensure!(answer.trim() == "yes", "nothing was done");
    Ok(())
}
