//! `check`: reports every problem that would make a run fail, and what else an admin should know
//! about the configuration and the host. Changes nothing.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::unistd::User;

use crate::accounts;
use crate::config::host::Host;
use crate::config::{Config, Postgresql};
use crate::finding::{Finding, Verdict};
use crate::gitlab::hold::{self, Linux};
use crate::gitlab::{drain, freeze, proxy, strangers};
use crate::host::beneath::Directory;
use crate::host::{self, own, process, remedy, secret, text, user};
use crate::monitoring;
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::Engine;
use crate::run::preflight;
use crate::runs::restore::RestoreJournal;
use crate::say;
use crate::stores::files::{links, mounted, object_storage, permissions};
use crate::stores::{files, postgresql};
use crate::systemd::{Manager, ServiceManager};
use crate::units::render::credential;
use crate::units::{Plan, Restore, Unit};

/// The name of this program in a shell.
const PROGRAM: &str = "gitlab-backup";
/// The directory for temporary files, empty after a reboot.
const RUN: &str = "/run";

/// Prints every finding. Fails if there are errors.
pub async fn check(config: Result<Config>, json: bool) -> Result<()> {
    let findings = match config {
        Ok(config) => findings(&config).await,
        // The error of an invalid configuration has one line per finding.
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
    let (errors, warnings) = (count(Verdict::Wrong), count(Verdict::Warning));
    if errors > 0 {
        let number = |count: usize, of: &str| match count {
            1 => format!("1 {of}"),
            _ => format!("{count} {of}s"),
        };
        bail!("check failed: {}, {}", number(errors, "error"), number(warnings, "warning"));
    }
    Ok(())
}

/// Collects the findings about the host.
async fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::of("configuration", Ok(config.source.display().to_string()))];
    findings.push(program_on_path());
    findings.extend(permissions::findings(config));
    findings.extend(accounts(config));
    findings.extend(half_restored().await);
    let root = &RootDirectory::host();
    let preflight = preflight::host(config, root, Manager::connect).await;
    // Each check that needs D-Bus would wait for the same timeout.
    if !preflight.iter().any(|finding| finding.what == "systemd" && finding.is_wrong()) {
        findings.extend(
            timers(config).await.unwrap_or_else(|error| vec![Finding::of("timer", Err(error))]),
        );
        findings.extend(
            strangers::findings(config, Manager::connect)
                .await
                .unwrap_or_else(|error| vec![Finding::of("gitlab", Err(error))]),
        );
        findings.extend(
            hold::finding(config, &Linux { root }, Manager::connect)
                .await
                .unwrap_or_else(|error| Some(Finding::of("hold", Err(error)))),
        );
        findings.extend(
            freeze::findings(config, Manager::connect)
                .await
                .unwrap_or_else(|error| vec![Finding::of("freeze", Err(error))]),
        );
    }
    if !mounted::is_among(&preflight) {
        findings.extend(links::findings(config));
        findings.extend(files::explain_capture(config, root));
    }
    findings.extend(preflight);
    findings.extend(drain::finding(config));
    findings.extend(proxy::findings(config).await);
    findings.extend(object_storage::finding(&Host::new("/"), &config.files.configuration));
    if let Some(postgresql) = &config.postgresql {
        findings.extend(check_postgresql(config, postgresql).await);
    }
    findings.extend(monitoring::probe(&config.monitoring).await);
    findings.extend(repository(config));
    findings.extend((!config.retention.is_set()).then(|| {
        Finding::warning(
            "retention",
            "every run is kept forever: set the number of runs to keep in [retention]",
        )
    }));
    findings
}

/// Whether a shell finds this program by its name: GitLab's Omnibus package has a program of the
/// same name.
fn program_on_path() -> Finding {
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

/// Reports a restore that was interrupted half way, unless one is running now.
async fn half_restored() -> Option<Finding> {
    let why = RestoreJournal::half_way(&RootDirectory::host())?;
    let manager = Manager::connect().await.ok()?;
    let running = !manager.state(&Unit::from(Restore::Run).to_string()).await.ok()?.is_settled();
    (!running).then(|| Finding::of("restore", Err(anyhow!("{why}"))))
}

/// Reports missing accounts.
fn accounts(config: &Config) -> Vec<Finding> {
    let loader = config.postgresql.as_ref().is_some_and(Postgresql::by_socket);
    let wanted = [
        (true, "sandbox", accounts::SANDBOX, "'verify' inspects untrusted data"),
        (loader, "loader", accounts::LOADER, "a restore loads databases"),
    ];
    let missing =
        wanted.into_iter().filter(|(wanted, ..)| *wanted).filter_map(|(_, what, name, does)| {
            let found = check_account(name).with_context(|| format!("{does} as {name}"));
            found.err().map(|error| Finding::of(what, Err(error)))
        });
    missing.collect()
}

/// Fails unless the account `name` exists and has no privileges of root.
fn check_account(name: &str) -> Result<()> {
    let user = User::from_name(name).context("cannot look it up")?;
    let install = remedy::install();
    let user = user.with_context(|| format!("there is no such account: '{install}' creates it"))?;
    ensure!(
        !user.uid.is_root() && user.gid.as_raw() != 0,
        "it has root's user or group id: remove it, then '{install}' creates it again"
    );
    Ok(())
}

/// Reports timers that are loaded but not running or not enabled.
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
            let words = format!("{timer} runs, but not after a reboot: 'systemctl enable {timer}'");
            findings.push(Finding::warning("timer", words));
        }
    }
    Ok(findings)
}

/// Checks PostgreSQL as the OS user of its units, because a socket only accepts that user.
async fn check_postgresql(config: &Config, postgresql: &Postgresql) -> Vec<Finding> {
    if postgresql.password.as_ref().is_some_and(secret::is_out_of_reach) {
        return vec![Finding::warning("postgresql", secret::OUT_OF_REACH)];
    }
    match user::to_become(&postgresql.os_user) {
        Ok(None) => postgresql::findings(config).await,
        Ok(Some(user)) => check_postgresql_as(&user, config, postgresql)
            .unwrap_or_else(|error| vec![Finding::of("postgresql", Err(error))]),
        Err(error) => {
            let words = format!(
                "'{}' creates the user gitlab-backup; [postgresql] os-user names another one",
                remedy::install()
            );
            let error = error.context(words);
            vec![Finding::of("postgresql", Err(error))]
        }
    }
}

/// Runs `helper check-postgresql` as `user`, with the credentials of the units in a temporary
/// directory.
fn check_postgresql_as(
    user: &User,
    config: &Config,
    postgresql: &Postgresql,
) -> Result<Vec<Finding>> {
    let credentials = tempfile::Builder::new()
        .prefix("gitlab-backup-check-")
        .tempdir_in(RUN)
        .with_context(|| format!("cannot write to {RUN}"))?;
    let directory = Directory::open(credentials.path())?;
    let copy = |name: &str, source: &Path| -> Result<()> {
        let content =
            own::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        directory
            .create(OsStr::new(name), 0o600)?
            .write_all(&content)
            .with_context(|| format!("cannot write to {RUN}"))
    };
    copy(credential::CONFIG, &config.source)?;
    directory
        .create(OsStr::new(credential::HOST), 0o600)?
        .write_all(text::json(&config.found)?.as_bytes())?;
    if let Some(source) = &postgresql.password {
        copy(credential::POSTGRESQL, &secret::file(source, credential::POSTGRESQL)?)?;
    }
    directory.give(user.uid.as_raw(), user.gid.as_raw())?;
    let own = env::current_exe().context("cannot find this program's own path")?;
    let mut command = user::bound(&own, Some(user));
    command.arg("--config").arg(&config.source).args(["helper", "check-postgresql"]);
    // Without HOME: libpq looks there for certificates, and the user cannot read root's directory.
    command
        .env("CREDENTIALS_DIRECTORY", credentials.path())
        .env_remove("HOME")
        .current_dir("/")
        .stdin(Stdio::null());
    let output = command.output().context("cannot run this program again")?;
    ensure!(
        output.status.success(),
        "the check as user '{}' failed: {}",
        user.name,
        process::tail(&output.stderr)
    );
    serde_json::from_slice(&output.stdout)
        .context("the output of the PostgreSQL check cannot be parsed")
}

/// Checks that the repository opens and is writable, and reports its keys and its other hosts.
fn repository(config: &Config) -> Vec<Finding> {
    let location = &config.repository.location;
    if secret::is_out_of_reach(&config.repository.password) {
        return vec![Finding::warning("repository", secret::OUT_OF_REACH)];
    }
    let check = || {
        let engine = open::outside(config)?;
        if !open::exists(config, &RootDirectory::host(), &*engine)? {
            open::check_password(config)?;
            return Ok(vec![Finding::warning(
                "repository",
                format!("there is none at {location} yet: the first run creates it"),
            )]);
        }
        engine.probe()?;
        open::ensure_writable(config)?;
        open::ensure_password_survives_reboot(config)?;
        let opens = Finding::of("repository", Ok(format!("opens at {location}")));
        let found = [opens, keys(&*engine)?].into_iter().chain(other_hosts(&*engine)?);
        Ok(found.collect())
    };
    check().unwrap_or_else(|error: anyhow::Error| vec![Finding::of("repository", Err(error))])
}

/// Warns if the repository has a single key.
fn keys(engine: &dyn Engine) -> Result<Finding> {
    Ok(match engine.keys()?.len() {
        1 => Finding::warning(
            "keys",
            "only one key: losing its password loses every backup; create another with \
             'gitlab-backup key add' and keep its password elsewhere",
        ),
        count => Finding::of("keys", Ok(format!("{count} open the repository"))),
    })
}

/// Warns if other hosts store runs in the repository too.
fn other_hosts(engine: &dyn Engine) -> Result<Option<Finding>> {
    let own = host::name();
    let others: BTreeSet<String> = engine
        .snapshots()?
        .into_iter()
        .map(|snapshot| snapshot.host)
        .filter(|host| *host != own)
        .collect();
    Ok((!others.is_empty()).then(|| {
        let others = others.into_iter().collect::<Vec<_>>().join(", ");
        Finding::warning(
            "hosts",
            format!(
                "the repository also has runs of {others}: 'list', 'restore' and retention only \
                 use those of this host's name, {own}"
            ),
        )
    }))
}
