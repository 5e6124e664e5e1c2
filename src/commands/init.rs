//! `init`: inspects the host and writes a configuration that explains what it found. Never
//! overwrites a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::config::host::Host;
use crate::config::{Config, Gitlab, Postgresql, ReadinessUrl, RedisAddress, is_recognised};
use crate::gitlab::readiness;
use crate::host::beneath::Directory;
use crate::host::{own, remedy, text};
use crate::stores::files::object_storage;
use crate::stores::postgresql;
use crate::{note, say};

/// Possible URLs of GitLab's readiness check. The first that answers is used.
const READINESS: [&str; 6] = [
    "http://127.0.0.1:8080/-/readiness",
    "unix:/var/opt/gitlab/gitlab-workhorse/sockets/socket",
    "unix:/var/opt/gitlab/gitlab-rails/sockets/gitlab.socket",
    "unix:/home/git/gitlab/tmp/sockets/gitlab-workhorse.socket",
    "http://127.0.0.1/-/readiness",
    // GitLab has no readiness check before version 9.
    "http://127.0.0.1:8080/users/sign_in",
];
const INIT_SCRIPTS: &str = "/etc/init.d";
/// The data of a GitLab with init scripts.
const DATA: [&str; 4] = [
    "/home/git/repositories",
    "/home/git/gitlab/public/uploads",
    "/home/git/gitlab/builds",
    "/home/git/gitlab/shared",
];
/// Its configuration.
const CONFIGURATION: [&str; 3] =
    ["/home/git/gitlab/config", "/home/git/gitlab/.secret", "/home/git/gitlab-shell/config.yml"];
/// The superuser of the distribution's PostgreSQL.
const SUPERUSER: &str = "postgres";
const OWN_ROLE: &str =
    "# Backups use a role that can only read; restores use the superuser's role.\n";
const NO_ROLE: &str = "# 'gitlab-backup init --role' creates a role that can only read, for \
                       backups without the superuser's role.\n";
const REDIS: [&str; 3] =
    ["/var/run/redis/redis.sock", "/run/redis/redis-server.sock", "/run/redis/redis.sock"];

/// Options of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Write to FILE instead of the file of --config; - prints the configuration.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Inspect the host whose root directory is DIR.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Create a PostgreSQL role for backups that can read everything but is no superuser
    /// (PostgreSQL 14 or newer, on a socket).
    #[arg(long, conflicts_with = "root")]
    pub role: bool,
}

/// Writes the configuration to `target` or the file of `--output`, or prints it for `-`.
pub async fn init(target: &Path, args: &InitArgs) -> Result<()> {
    let host = Host::new(&args.root);
    let output = args.output.as_deref().unwrap_or(target);
    let path = host.path(output);
    if args.role && output != Path::new("-") && path.exists() {
        return add_role(&path, &host).await;
    }
    let readiness = if args.root == Path::new("/") { find_readiness().await } else { None };
    let text = describe(&host, readiness.as_deref(), args.role)?;
    if args.role {
        create_role(&Config::parse(&text, Path::new("init"), &host)?).await?;
    }
    if output == Path::new("-") {
        self::text::whole(&text);
        return Ok(());
    }
    write(&path, &text)
}

/// Writes the configuration, unless the file exists.
fn write(path: &Path, text: &str) -> Result<()> {
    let absolute = std::path::absolute(path)?;
    let name = absolute.file_name().with_context(|| format!("{} is no file", path.display()))?;
    let directory = Directory::made(absolute.parent().unwrap_or(&absolute))?;
    if directory.look(Path::new(name))?.is_some() {
        bail!(
            "{} exists and is not overwritten: --output - prints the configuration instead",
            path.display()
        );
    }
    directory.write_new(name, text.as_bytes(), 0o644)?;
    say!(
        "wrote {}: review it, then '{}' and 'gitlab-backup check'",
        path.display(),
        remedy::install()
    );
    Ok(())
}

/// Creates the role for an existing configuration, and prints the keys to add to it.
async fn add_role(path: &Path, host: &Host) -> Result<()> {
    let config = Config::load(path, host)?;
    create_role(&config).await?;
    match &config.postgresql {
        Some(postgresql) if postgresql.user != postgresql::ROLE => {
            let lines = role_lines(postgresql);
            if remedy::is_nixos() {
                say!(
                    "to use this role for backups, set in \
                     services.gitlab-backup.settings.postgresql of the system's configuration"
                );
                text::out("");
                text::out(&lines.replace('\n', ";\n"));
            } else {
                say!("to use this role for backups, set in [postgresql] of {}", path.display());
                text::out("");
                text::out(&lines);
            }
            say!("then '{}' and 'gitlab-backup check'", remedy::install());
        }
        _ => say!("{} names the role already", path.display()),
    }
    Ok(())
}

/// Creates the role that backs up, and prints the SQL statements.
async fn create_role(config: &Config) -> Result<()> {
    let postgresql = config
        .postgresql
        .as_ref()
        .context("[postgresql] enable is false: there is no server for the role")?;
    for statement in postgresql::create_role(postgresql).await? {
        note!("ran: {statement};");
    }
    Ok(())
}

/// The keys for the role that backs up, with the current roles of restores.
fn role_lines(postgresql: &Postgresql) -> String {
    format_role_lines(postgresql::ROLE, &postgresql.restore_user, &postgresql.restore_os_user)
}

fn format_role_lines(role: &str, restore: &str, restore_os: &str) -> String {
    let [role, restore, restore_os] = [role, restore, restore_os].map(quoted);
    format!(
        "user = {role}\nos-user = {role}\nrestore-user = {restore}\nrestore-os-user = \
         {restore_os}\n"
    )
}

/// The first URL of [`READINESS`] that answers.
async fn find_readiness() -> Option<String> {
    for text in READINESS {
        let url = match text.strip_prefix("unix:") {
            Some(socket) => {
                ReadinessUrl::Unix { socket: socket.into(), path: "/-/readiness".to_owned() }
            }
            None => ReadinessUrl::Http(text.to_owned()),
        };
        if readiness::ask(&url).await.is_ok() {
            return Some(text.to_owned());
        }
    }
    None
}

/// The text of the configuration, usable without edits. The layout's defaults are comments, so that
/// they follow the host's changes.
fn describe(host: &Host, readiness: Option<&str>, role: bool) -> Result<String> {
    let name = Path::new("init");
    let (known, scripts) = match Config::parse("", name, host) {
        Ok(config) => (Some(config), Vec::new()),
        Err(error) => {
            let scripts = init_scripts(host);
            if is_recognised(host) {
                return Err(error).context("this GitLab cannot be backed up with its defaults");
            }
            if scripts.is_empty() {
                bail!(
                    "no GitLab was found here: neither units such as gitlab-runsvdir.service or \
                     gitlab-puma.service nor an init script {INIT_SCRIPTS}/gitlab*; for any \
                     other, write a configuration with layout = \"custom\", see the README"
                );
            }
            (None, scripts)
        }
    };
    let mut out = String::from(
        "# Written by 'gitlab-backup init' for this host. Keys that are commented out are \
         defaults, which the program finds on the host.\n\n",
    );
    match &known {
        Some(config) => known_gitlab(&mut out, &config.gitlab),
        None => scripted_gitlab(&mut out, &scripts),
    }
    readiness_url(&mut out, readiness);
    if known.is_none() {
        scripted_proxies(&mut out, &scripts);
    }
    out.push_str("\n[schedule]\ncalendar = \"*-*-* 02:30:00\"   # systemd.time(7); the default\n");
    match &known {
        Some(config) => known_stores(&mut out, config, role),
        None => guessed_stores(&mut out, host, role),
    }
    if let Some(finding) = object_storage::finding(
        host,
        known.as_ref().map_or(&[], |config| &config.files.configuration),
    ) {
        let _ = writeln!(out, "# NOT in the backup: {}", finding.message);
    }
    out.push_str(
        "\n[repository]\nlocation = \"/var/backups/gitlab\"   # better on another host: engine = \
         \"restic\" supports all backends of restic\n\n# Without this section every run is \
         kept.\n# [retention]\n# keep-daily = 7\n# keep-weekly = 4\n# keep-monthly = 6\n\n# When \
         the newest run is verified by a restore into temporary servers.\n# [verify]\n# calendar \
         = \"Sat 06:00\"\n",
    );
    // The configuration must be valid as written.
    Config::parse(&out, name, host)
        .context("the generated configuration for this host is invalid")?;
    Ok(out)
}

/// `readiness-url`, as a comment if no URL answered.
fn readiness_url(out: &mut String, answered: Option<&str>) {
    match answered {
        Some(url) => line(
            out,
            "readiness-url",
            &quoted(url),
            "answered just now; a run waits until GitLab is ready",
        ),
        None => out.push_str(
            "# readiness-url = \"http://127.0.0.1:8080/-/readiness\"   # no URL answered just \
             now; if set, a run waits until GitLab is ready\n",
        ),
    }
}

/// `[gitlab]` for a host with a known layout.
fn known_gitlab(out: &mut String, gitlab: &Gitlab) {
    out.push_str("[gitlab]\n");
    line(out, "layout", &quoted(&gitlab.layout), "its unit files are on this host");
    let units: Vec<String> = gitlab.writers.iter().map(|unit| quoted(unit.as_str())).collect();
    let _ = writeln!(
        out,
        "# The units that can write GitLab's data and are stopped, or held still, during the \
         capture:\n# writers = [{}]",
        units.join(", ")
    );
    let _ = match &gitlab.hold.obstacle {
        Some(why) => writeln!(out, "# They are stopped, because {why}."),
        None => writeln!(
            out,
            "# Those that answer users are held still while nothing is in progress, if that is \
             possible ('gitlab-backup check' tells):\n# quiesce = \"auto\"   # \"stop\" always \
             stops them"
        ),
    };
    for proxy in &gitlab.proxies {
        let what = if gitlab.writers.contains(&proxy.unit()) {
            "stopped by"
        } else {
            "left up; a restore stops it by"
        };
        let _ = writeln!(
            out,
            "#   {}: {what} '{}', status by '{}'",
            proxy.name,
            proxy.stop.join(" "),
            proxy.status.join(" ")
        );
    }
}

/// `[postgresql]`, `[[redis]]` and `[files]` for a host with a known layout.
fn known_stores(out: &mut String, config: &Config, role: bool) {
    out.push('\n');
    if let Some(postgresql) = &config.postgresql {
        let found = format!("# host = {}\n# port = {}", quoted(&postgresql.host), postgresql.port);
        let _ = match role {
            true => {
                writeln!(
                    out,
                    "{OWN_ROLE}[postgresql]   # every database except the templates\n{found}\n{}",
                    role_lines(postgresql).trim_end()
                )
            }
            false => {
                writeln!(
                    out,
                    "{NO_ROLE}# [postgresql]   # every database except the templates\n{found}\n# \
                     user = {}",
                    quoted(&postgresql.user)
                )
            }
        };
        if let Some(directory) = &postgresql.bin_dir {
            let _ = writeln!(out, "# bin-dir = {}", quoted(&directory.to_string_lossy()));
        }
    }
    for redis in &config.redis {
        let _ = writeln!(
            out,
            "\n# [[redis]]\n# name = {}\n# url = {}",
            quoted(&redis.name),
            quoted(&url(&redis.address))
        );
    }
    out.push_str("\n# [files]\n# paths = [\n");
    for path in &config.files.paths {
        let why = if config.files.configuration.contains(path) {
            "   # configuration and secrets"
        } else {
            ""
        };
        let _ = writeln!(out, "#   {},{why}", quoted(&path.to_string_lossy()));
    }
    out.push_str("# ]\n");
}

fn url(address: &RedisAddress) -> String {
    match address {
        RedisAddress::Unix(path) => format!("unix://{}", path.display()),
        RedisAddress::Tcp { host, port, tls } => {
            format!("{}://{host}:{port}", if *tls { "rediss" } else { "redis" })
        }
    }
}

/// The names of GitLab's init scripts.
fn init_scripts(host: &Host) -> Vec<String> {
    let entries = own::entries(host.path(INIT_SCRIPTS)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("gitlab") && !name.ends_with('~')).collect();
    names.sort();
    names
}

/// `[gitlab]` for a host with init scripts.
fn scripted_gitlab(out: &mut String, scripts: &[String]) {
    out.push_str("[gitlab]\n");
    line(
        out,
        "layout",
        "\"custom\"",
        &format!("no GitLab units, but init scripts: {INIT_SCRIPTS}/{}", scripts.join(", ")),
    );
}

/// A proxy for each init script.
fn scripted_proxies(out: &mut String, scripts: &[String]) {
    for script in scripts {
        let proxy: String = script
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let _ = writeln!(
            out,
            "\n[[gitlab.proxy]]   # not managed by systemd: its init script stops it and reports \
             its status\nname = {}",
            quoted(&proxy)
        );
        for word in ["start", "stop", "status"] {
            let _ = writeln!(
                out,
                "{word} = [{}, {}]",
                quoted(&format!("{INIT_SCRIPTS}/{script}")),
                quoted(word)
            );
        }
    }
}

/// `[postgresql]`, `[[redis]]` and `[files]` for a host with init scripts: the usual places.
fn guessed_stores(out: &mut String, host: &Host, role: bool) {
    let exists = |path: &&&str| host.path(path).exists();
    let what = "[postgresql]   # every database except the templates, on the socket of the \
                distribution's server";
    let host_line = "host = \"/var/run/postgresql\"";
    let _ = match role {
        true => writeln!(
            out,
            "\n{OWN_ROLE}{what}\n{host_line}\n{}",
            format_role_lines(postgresql::ROLE, SUPERUSER, SUPERUSER)
        ),
        false => writeln!(out, "\n{NO_ROLE}# {what}\n# {host_line}\n"),
    };
    match REDIS.iter().find(exists) {
        Some(socket) => {
            let _ = writeln!(
                out,
                "[[redis]]   # its socket exists\nname = \"main\"\nurl = {}",
                quoted(&format!("unix://{socket}"))
            );
        }
        None => out.push_str(
            "[[redis]]   # no socket was found at the usual paths\nname = \"main\"\nurl = \
             \"redis://127.0.0.1:6379\"\n",
        ),
    }
    let paths: Vec<String> =
        DATA.iter().chain(&CONFIGURATION).filter(exists).map(|path| quoted(path)).collect();
    let configuration: Vec<String> =
        CONFIGURATION.iter().filter(exists).map(|path| quoted(path)).collect();
    let _ = writeln!(
        out,
        "\n[files]\npaths = [{}]   # the existing ones of GitLab's usual directories",
        paths.join(", ")
    );
    let _ = writeln!(
        out,
        "configuration = [{}]   # a restore replaces these only with --with-config",
        configuration.join(", ")
    );
}

/// Writes a key, its value, and a comment that explains it.
fn line(out: &mut String, key: &str, value: &str, why: &str) {
    let _ = writeln!(out, "{key} = {value}   # {why}");
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
