//! `check`: the configuration and the host, everything that a run would find wrong and what an
//! admin should know. Changes nothing.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::unistd::User;

use crate::accounts;
use crate::config::host::{self, Host};
use crate::config::{Config, Postgresql};
use crate::finding::{Finding, Verdict};
use crate::gitlab::{freeze, proxy, strangers};
use crate::host::beneath::Directory;
use crate::host::{own, process, remedy, secret, text, user};
use crate::monitoring;
use crate::open;
use crate::paths::RootDirectory;
use crate::run::preflight;
use crate::runs::restore::Journal;
use crate::say;
use crate::stores::files::{links, mounted, object_storage, permissions};
use crate::stores::{files, postgresql};
use crate::systemd::{Manager, ServiceManager};
use crate::units::render::credential;
use crate::units::{Plan, Restore, Unit};

/// The name by which a shell looks for this program.
const PROGRAM: &str = "gitlab-backup";
/// A directory that is gone after a reboot at the latest.
const RUN: &str = "/run";

/// Prints every finding; fails if anything is wrong.
pub async fn check(config: Result<Config>, json: bool) -> Result<()> {
    let findings = match config {
        Ok(config) => host(&config).await,
        // Its error has a line for each.
        Err(error) => {
            let lines = format!("{error:#}");
            lines.lines().map(|line| Finding::of("configuration", Err(anyhow!("{line}")))).collect()
        }
    };
    if json {
        text::out(&text::json(&findings)?);
    } else {
        findings.iter().for_each(|finding| say!("{finding}"));
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (wrong, warnings) = (count(Verdict::Wrong), count(Verdict::Warning));
    if wrong > 0 {
        bail!("no backup can be made like this: {wrong} wrong, {warnings} to think about");
    }
    Ok(())
}

async fn host(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::of("configuration", Ok(config.source.display().to_string()))];
    findings.push(on_path());
    findings.extend(permissions::findings(config));
    findings.extend(accounts(config));
    findings.extend(half_restored().await);
    let preflight = preflight::host(config).await;
    // A bus that does not answer is waited for long enough once.
    if !preflight.iter().any(|finding| finding.what == "systemd" && finding.is_wrong()) {
        findings.extend(
            timers(config).await.unwrap_or_else(|error| vec![Finding::of("timer", Err(error))]),
        );
        findings.extend(
            strangers::findings(config)
                .await
                .unwrap_or_else(|error| vec![Finding::of("gitlab", Err(error))]),
        );
        findings.extend(
            freeze::findings(config)
                .await
                .unwrap_or_else(|error| vec![Finding::of("freeze", Err(error))]),
        );
    }
    if !mounted::is_among(&preflight) {
        findings.extend(links::findings(config));
        findings.extend(files::explain_capture(config));
    }
    findings.extend(preflight);
    findings.extend(proxy::findings(config).await);
    findings.extend(object_storage::finding(&Host::new("/"), &config.files.configuration));
    if let Some(postgresql) = &config.postgresql {
        findings.extend(ask_postgresql(config, postgresql).await);
    }
    findings.extend(monitoring::probe(config).await);
    findings.extend(repository(config));
    findings.extend(
        (!config.retention.is_set()).then(|| {
            Finding::warning("retention", "every run is kept for ever: [retention] says how many are to be, and removes the others")
        }),
    );
    findings
}

/// GitLab's Omnibus package has a program of the same name.
fn on_path() -> Finding {
    let own = match env::current_exe().context("cannot find this program's own path") {
        Ok(own) => own,
        Err(error) => return Finding::of("program", Err(error)),
    };
    match process::find(PROGRAM, process::search_path()) {
        Some(found) if !process::is_own(&found) => {
            let words = format!(
                "the shell finds another one first, {}: call {} by its path",
                found.display(),
                own.display()
            );
            Finding::warning("program", words)
        }
        _ => Finding::of("program", Ok(own.display().to_string())),
    }
}

/// Whether a restore came to no end; one that is at work may be half way.
async fn half_restored() -> Option<Finding> {
    let why = Journal::half_way(&RootDirectory::host())?;
    let manager = Manager::connect().await.ok()?;
    let at_work = !manager.state(&Unit::from(Restore::Run).to_string()).await.ok()?.is_settled();
    (!at_work).then(|| Finding::of("restore", Err(anyhow!("{why}"))))
}

/// Whether the accounts are there that what others made is looked at and loaded with.
fn accounts(config: &Config) -> Vec<Finding> {
    let loader = config.postgresql.as_ref().is_some_and(Postgresql::by_socket);
    let wanted = [
        (true, "sandbox", accounts::SANDBOX, "'verify' looks at what others made"),
        (loader, "loader", accounts::LOADER, "a restore loads databases"),
    ];
    let missing =
        wanted.into_iter().filter(|(wanted, ..)| *wanted).filter_map(|(_, what, name, does)| {
            let found = account(name).with_context(|| format!("{does} as {name}"));
            found.err().map(|error| Finding::of(what, Err(error)))
        });
    missing.collect()
}

fn account(name: &str) -> Result<()> {
    let user = User::from_name(name).context("cannot ask for it")?;
    let install = remedy::install();
    let user = user.with_context(|| format!("there is no such account: '{install}' makes it"))?;
    ensure!(
        !user.uid.is_root() && user.gid.as_raw() != 0,
        "it is root's: remove it, and '{install}' makes it anew"
    );
    Ok(())
}

/// Whether the clock starts what it should.
async fn timers(config: &Config) -> Result<Vec<Finding>> {
    let manager = Manager::connect().await?;
    let mut findings = Vec::new();
    for timer in Plan::new(config).timers() {
        let timer = timer.to_string();
        let state = manager.state(&timer).await?;
        if state.load != "loaded" {
            continue;
        }
        if !state.active.is_running() {
            let why =
                state.condition.as_ref().map(|condition| format!("its {condition} is not met"));
            let words = why.unwrap_or_else(|| remedy::enable(&timer));
            findings.push(Finding::warning("timer", format!("{timer} does not run: {words}")));
        } else if !remedy::is_nixos() && manager.enablement(&timer).await?.starts_with("disabled") {
            let words =
                format!("{timer} runs, and after a reboot it does not: 'systemctl enable {timer}'");
            findings.push(Finding::warning("timer", words));
        }
    }
    Ok(findings)
}

/// By a socket PostgreSQL answers its own user only: the question is asked as that user, who is
/// given what its units are given.
async fn ask_postgresql(config: &Config, postgresql: &Postgresql) -> Vec<Finding> {
    if postgresql.password.as_ref().is_some_and(secret::is_out_of_reach) {
        return vec![Finding::warning("postgresql", secret::OUT_OF_REACH)];
    }
    match user::to_become(&postgresql.os_user) {
        Ok(None) => postgresql::findings(config).await,
        Ok(Some(user)) => ask_as(&user, config, postgresql)
            .unwrap_or_else(|error| vec![Finding::of("postgresql", Err(error))]),
        Err(error) => {
            let words = format!(
                "'{}' makes the user gitlab-backup, and [postgresql] os-user names another",
                remedy::install()
            );
            let error = error.context(words);
            vec![Finding::of("postgresql", Err(error))]
        }
    }
}

fn ask_as(user: &User, config: &Config, postgresql: &Postgresql) -> Result<Vec<Finding>> {
    let given = tempfile::Builder::new()
        .prefix("gitlab-backup-check-")
        .tempdir_in(RUN)
        .with_context(|| format!("cannot write to {RUN}"))?;
    let place = Directory::open(given.path())?;
    let give = |name: &str, source: &Path| -> Result<()> {
        let content =
            own::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        place
            .create(OsStr::new(name), 0o600)?
            .write_all(&content)
            .with_context(|| format!("cannot write to {RUN}"))
    };
    give(credential::CONFIG, &config.source)?;
    place
        .create(OsStr::new(credential::HOST), 0o600)?
        .write_all(text::json(&config.found)?.as_bytes())?;
    if let Some(source) = &postgresql.password {
        give(credential::POSTGRESQL, &secret::file(source, credential::POSTGRESQL)?)?;
    }
    place.give(user.uid.as_raw(), user.gid.as_raw())?;
    let own = env::current_exe().context("cannot find this program's own path")?;
    let mut command = user::bound(&own, Some(user));
    command.arg("--config").arg(&config.source).args(["helper", "check-postgresql"]);
    // libpq looks for certificates in the home directory, and ours is not that user's.
    command
        .env("CREDENTIALS_DIRECTORY", given.path())
        .env_remove("HOME")
        .current_dir("/")
        .stdin(Stdio::null());
    let output = command.output().context("cannot run this program again")?;
    ensure!(
        output.status.success(),
        "asking as user '{}' failed: {}",
        user.name,
        process::tail(&output.stderr)
    );
    serde_json::from_slice(&output.stdout)
        .context("the answer about PostgreSQL cannot be understood")
}

fn repository(config: &Config) -> Vec<Finding> {
    let location = &config.repository.location;
    if secret::is_out_of_reach(&config.repository.password) {
        return vec![Finding::warning("repository", secret::OUT_OF_REACH)];
    }
    let look = || {
        let engine = open::outside(config)?;
        if !open::is_there(config, &*engine)? {
            open::judge_password(config)?;
            return Ok(vec![Finding::warning(
                "repository",
                format!("there is none at {location} yet: the first run makes it"),
            )]);
        }
        engine.probe()?;
        open::writable(config)?;
        open::outlives(config)?;
        let keys = match engine.keys()?.len() {
            1 => Finding::warning(
                "keys",
                "a second one never was added: if the only password is lost, so is every backup; 'gitlab-backup key add' makes one to be kept elsewhere",
            ),
            count => Finding::of("keys", Ok(format!("{count} open the repository"))),
        };
        let own = host::name();
        let others: BTreeSet<String> = engine
            .snapshots()?
            .into_iter()
            .map(|snapshot| snapshot.host)
            .filter(|host| *host != own)
            .collect();
        let others = (!others.is_empty()).then(|| {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            Finding::warning(
                "hosts",
                format!("the repository has runs of {others} too: 'list', 'restore' and retention go by this host's name, {own}"),
            )
        });
        Ok([Finding::of("repository", Ok(format!("opens at {location}"))), keys]
            .into_iter()
            .chain(others)
            .collect())
    };
    look().unwrap_or_else(|error: anyhow::Error| vec![Finding::of("repository", Err(error))])
}
