//! `restore`: a run takes the place of what is there, or is laid out elsewhere.

mod into;

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::BinaryBytes;
use tokio::time::{Instant, sleep};

use crate::catalog::{Catalog, Whose};
use crate::config::Config;
use crate::exit::{ALREADY_RUNNING, Exit};
use crate::host::{self, remedy, text};
use crate::open;
use crate::paths::RootDirectory;
use crate::runs::restore::{Journal, Request, State, Turn, left};
use crate::runs::{Kind, Manifest, Record};
use crate::systemd::{Manager, Mode, ServiceManager};
use crate::units::{Restore, Unit};
use crate::values::RunId;
use crate::{note, say};

use super::follow::{follow, succeeded};

/// What `--only` takes, where it is about what is live.
const PARTS: [&str; 4] = ["postgresql", "redis", "files", "config"];

/// How long another command may still have its turn when its restore is over, and between two
/// looks.
const TURN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The run; the newest complete one if left out.
    run: Option<RunId>,
    /// Of the host of this name, and not of this one.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Lay it out in DIR, which is empty or not there yet, and touch nothing live.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// These parts only: postgresql, redis, files, config; with --into those that 'show' lists.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// This path only, as it was on the host: one repository, one file.
    #[arg(long, value_name = "PATH", conflicts_with = "only")]
    path: Option<PathBuf>,
    /// Put configuration and secrets in place too; without it they are laid beside and compared.
    #[arg(long)]
    with_config: bool,
    /// Restore a run of another version or edition of GitLab.
    #[arg(long)]
    allow_version_mismatch: bool,
    /// Leave this Redis as it is.
    #[arg(long, value_name = "NAME")]
    skip_redis: Vec<String>,
    /// Put back what a restore that ended half way has replaced.
    #[arg(long, conflicts_with_all = ["run", "host", "into", "only", "path", "with_config"])]
    undo: bool,
    /// Keep what was restored, where --undo has failed: what was there before is removed.
    #[arg(long, conflicts_with_all = ["run", "host", "into", "only", "path", "with_config", "undo", "dry_run"])]
    keep: bool,
    /// Do nothing, and tell what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// One JSON object at the end: the record of the restore.
    #[arg(long)]
    json: bool,
}

impl RestoreArgs {
    /// Whether nothing live is touched.
    pub fn is_elsewhere(&self) -> bool {
        self.into.is_some()
    }
}

/// Restores what is asked for.
pub async fn restore(config: &Config, args: &RestoreArgs) -> Result<()> {
    if args.keep {
        return keep(args).await;
    }
    if args.undo {
        let Some(journal) = Journal::load(&RootDirectory::host())? else {
            bail!("no restore ended half way: there is nothing to put back")
        };
        loss(&journal)?;
        return live(
            config,
            None,
            args,
            "put back what was there before the restore, and lose what was written since",
        )
        .await;
    }
    for line in left(&RootDirectory::host())? {
        note!("note: {line}");
    }
    let engine = open::required(config)?;
    let whose = Whose::asked(args.host.as_deref(), args.run.as_ref());
    let mut catalog = Catalog::read(&*engine, whose)?;
    if let Some(id) =
        args.run.clone().or_else(|| catalog.complete.last().map(|run| run.manifest.id.clone()))
    {
        catalog = Catalog::read_afresh(&*engine, whose, &id)?;
    }
    let manifest = &catalog.pick(args.run.as_ref())?.manifest;
    if !args.skip_redis.is_empty() {
        Request { only: Vec::new(), ..request(manifest, args) }.check_names(manifest)?;
    }
    if let Some(into) = &args.into {
        return into::lay_out(config, manifest, into, args);
    }
    if let Some(unknown) = args.only.iter().find(|name| !PARTS.contains(&name.as_str())) {
        let into = "; any part of a run is laid out in a directory of its own with --into DIR";
        bail!("'{unknown}' is no part that is restored in place: {}{into}", PARTS.join(", "));
    }
    if let Some(path) = &args.path {
        let files = manifest.parts.iter().find(|part| part.name == "files");
        let files = files.filter(|files| files.paths.iter().any(|root| path.starts_with(root)));
        let files = files.with_context(|| {
            format!("{} is not among the files of run {}", text::path(path), manifest.id)
        })?;
        let mut there = false;
        engine.list(&files.snapshot, &mut |found, _| there |= found == path)?;
        ensure!(there, "{} is not in run {}", text::path(path), manifest.id);
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
    live(
        config,
        Some(request),
        args,
        &format!(
            "replace all that by what it was on {}",
            manifest.started.strftime("%Y-%m-%d %H:%M:%S UTC")
        ),
    )
    .await
}

/// Has what was there before removed, which was wanted back.
async fn keep(args: &RestoreArgs) -> Result<()> {
    let journal = Journal::load(&RootDirectory::host())?
        .context("no restore waits for that: there is nothing beside what is live")?;
    ensure!(
        journal.state.has_taken_place(),
        "a restore ended half way, and nothing of it can be kept: 'gitlab-backup restore' makes it anew, 'gitlab-backup restore --undo' puts back what \
         was there before"
    );
    if !args.yes {
        confirm("Remove what was there before the restore")?;
    }
    let manager = Manager::connect().await?;
    let _turn = Turn::take()?
        .ok_or_else(|| busy("another 'gitlab-backup restore' is at work: wait for it"))?;
    refuse_if_busy(&manager).await?;
    Journal::request_undo(&RootDirectory::host(), false)?;
    let finish = Unit::from(Restore::Finish).to_string();
    manager.reset_failed(&finish).await?;
    manager.start(&finish, Mode::Replace).await?;
    while !manager.state(&finish).await?.is_settled() {
        sleep(PAUSE).await;
    }
    ensure!(
        Journal::load(&RootDirectory::host())?.is_none(),
        "what was there before is not removed: journalctl -u {finish}"
    );
    say!("what was restored is kept");
    Ok(())
}

/// Tells what is lost if what has taken place is undone, before anybody is asked.
fn loss(journal: &Journal) -> Result<()> {
    journal.ensure_undoable()?;
    let plan = &journal.plan;
    let run = plan.run.as_ref().map_or("a run", RunId::as_str);
    let since = journal.switched.unwrap_or(journal.started).strftime("%Y-%m-%d %H:%M:%S UTC");
    match journal.state {
        State::Switched => {
            say!(
                "run {run} has taken place, and GitLab may have run with it since {since}. What was written since then is LOST if it is undone:"
            );
        }
        State::Switching => {
            say!(
                "the restore of run {run} ended half way. If GitLab was started since {since}, what was written then is LOST:"
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
    }
}

/// The plan, as far as it is known before the host is looked at.
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

/// Asks, starts the restore and follows it.
async fn live(
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
        confirm(&format!(
            "GitLab is stopped meanwhile. {}{}",
            what[..1].to_uppercase(),
            &what[1..]
        ))?;
    }
    let turn = take_turn(&manager).await?;
    let last = Record::last(&RootDirectory::host(), Kind::Restore)?;
    ensure!(
        last.as_ref().map(|record| (&record.id, record.started))
            == before.as_ref().map(|record| (&record.id, record.started)),
        "another restore has ended meanwhile: nothing was done; look at 'gitlab-backup status', and ask again"
    );
    let undo = Request {
        run: None,
        only: Vec::new(),
        path: None,
        with_config: false,
        allow_version_mismatch: false,
        skip_redis: Vec::new(),
    };
    manager.keep(&executor).await?;
    manager.reset_failed(&executor).await?;
    request.unwrap_or(undo).leave(&RootDirectory::host(), &turn)?;
    let followed = async {
        manager.start(&Unit::from(Restore::Target).to_string(), Mode::Replace).await?;
        follow(&manager, Kind::Restore, before.as_ref()).await
    };
    let followed = followed.await;
    Request::withdraw(&RootDirectory::host(), &turn)?;
    let record = followed?;
    if args.json {
        text::out(&text::json(&record)?);
    }
    for warning in &record.warnings {
        note!("note: {warning}");
    }
    if let Some(why) = Journal::half_way(&RootDirectory::host()) {
        note!("GITLAB IS DOWN: {why}");
    } else if args.undo
        && Journal::load(&RootDirectory::host())?.is_some_and(|journal| journal.undo)
    {
        for line in left(&RootDirectory::host())? {
            note!("note: {line}");
        }
    }
    succeeded(if args.undo { "putting back" } else { "the restore" }, &record)?;
    let away = record.away();
    match args.undo {
        true => note!("what was there before the restore is back; GitLab was down for {away}"),
        false => note!("run {} is restored; GitLab was down for {away}", record.id),
    }
    Ok(())
}

/// The right to ask, when nothing goes on: while somebody thought about the answer, somebody else
/// may have been quicker. Who has followed one that is over has it for a moment more.
async fn take_turn(manager: &Manager) -> Result<Turn> {
    let started = Instant::now();
    loop {
        let turn = Turn::take()?;
        refuse_if_busy(manager).await?;
        match turn {
            Some(turn) => return Ok(turn),
            None if started.elapsed() > TURN => {
                return Err(busy("another restore is asked for: wait for it"));
            }
            None => sleep(PAUSE).await,
        }
    }
}

/// One of the two goes on already.
async fn refuse_if_busy(manager: &Manager) -> Result<()> {
    for (unit, message) in [
        (
            Unit::Run,
            "a backup is going on: wait for it, or 'systemctl stop gitlab-backup-run.service'",
        ),
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

/// A restore that is done again puts back what an unfinished one has replaced, which was not used:
/// GitLab was down. If somebody has started it all the same, a restore of less would lose by the
/// way what was written since.
async fn refuse_if_used(config: &Config, manager: &Manager, request: &Request) -> Result<()> {
    let half = Journal::load(&RootDirectory::host())?
        .is_some_and(|journal| journal.state == State::Switching);
    let mut runs = Vec::new();
    for writer in config.gitlab.writers.iter().filter(|_| half) {
        if manager.state(writer.as_str()).await?.active.is_running() {
            runs.push(writer.as_str());
        }
    }
    let what = request
        .path
        .as_ref()
        .map_or_else(|| request.only.join(", "), |path| path.display().to_string());
    ensure!(
        runs.is_empty(),
        "a restore ended half way, and {} run with what it left: to restore {what} alone would put back what was there before, and lose what was \
         written since. 'gitlab-backup restore --undo' does that, and asks; 'gitlab-backup restore RUN' makes all new",
        runs.join(", ")
    );
    Ok(())
}

fn confirm(what: &str) -> Result<()> {
    ensure!(std::io::stdin().is_terminal(), "nobody can be asked here: --yes answers for you");
    // Without a line's end, and of our own words only.
    #[expect(clippy::print_stderr, reason = "the answer is typed behind it")]
    {
        eprint!("{what}? Type 'yes': ");
    }
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("no answer could be read")?;
    ensure!(answer.trim() == "yes", "nothing was done");
    Ok(())
}
