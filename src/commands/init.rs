//! `init`: looks at the host and writes a configuration that says what was found and why; never
//! over another.

use std::fmt::Write as _;
use std::io::Write as _;
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

/// Where GitLab may tell that it is usable; the first that answers is taken.
const READINESS: [&str; 6] = [
    "http://127.0.0.1:8080/-/readiness",
    "unix:/var/opt/gitlab/gitlab-workhorse/sockets/socket",
    "unix:/var/opt/gitlab/gitlab-rails/sockets/gitlab.socket",
    "unix:/home/git/gitlab/tmp/sockets/gitlab-workhorse.socket",
    "http://127.0.0.1/-/readiness",
    // There was no other before GitLab 9.
    "http://127.0.0.1:8080/users/sign_in",
];
const INIT_SCRIPTS: &str = "/etc/init.d";
/// What a GitLab of before systemd has under `/home/git`.
const DATA: [&str; 7] = [
    "/home/git/repositories",
    "/home/git/gitlab/public/uploads",
    "/home/git/gitlab/builds",
    "/home/git/gitlab/shared",
    "/home/git/gitlab/config",
    "/home/git/gitlab/.secret",
    "/home/git/gitlab-shell/config.yml",
];
/// Who owns the distribution's server.
const SUPERUSER: &str = "postgres";
const OWN_ROLE: &str =
    "# Backups are made by a role that only reads; restores by the one that owns the server.\n";
const NO_ROLE: &str = "# 'gitlab-backup init --role' makes a role that only reads, and has backups made by it instead of by the server's superuser.\n";
const REDIS: [&str; 3] =
    ["/var/run/redis/redis.sock", "/run/redis/redis-server.sock", "/run/redis/redis.sock"];

/// Options of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Write it there instead of where --config says; - prints it.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Look at the tree below DIR.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Make a PostgreSQL role that reads everything and is no superuser, and have backups made by
    /// it (14 or newer, by a socket).
    #[arg(long, conflicts_with = "root")]
    pub role: bool,
}

/// Writes it to `target`, or to stdout for `-`.
pub async fn init(target: &Path, args: &InitArgs) -> Result<()> {
    let host = Host::new(&args.root);
    let output = args.output.as_deref().unwrap_or(target);
    let path = host.path(output);
    if args.role && output != Path::new("-") && path.exists() {
        return role_for(&path, &host).await;
    }
    let readiness = if args.root == Path::new("/") { answering().await } else { None };
    let text = describe(&host, readiness.as_deref(), args.role)?;
    if args.role {
        make_role(&Config::parse(&text, Path::new("init"), &host)?).await?;
    }
    if output == Path::new("-") {
        self::text::whole(&text);
        return Ok(());
    }
    let whole = std::path::absolute(&path)?;
    let name = whole.file_name().with_context(|| format!("{} is no file", path.display()))?;
    let directory = Directory::made(whole.parent().unwrap_or(&whole))?;
    if directory.look(Path::new(name))?.is_some() {
        bail!(
            "{} is there already and is left as it is: --output - prints what would be written",
            path.display()
        );
    }
    let mut file = directory.create(name, 0o644)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    say!(
        "wrote {}: look at it, then '{}' and 'gitlab-backup check'",
        path.display(),
        remedy::install()
    );
    Ok(())
}

/// Makes the role for a configuration that is there, and says what to write into it.
async fn role_for(path: &Path, host: &Host) -> Result<()> {
    let config = Config::load(path, host)?;
    make_role(&config).await?;
    match &config.postgresql {
        Some(postgresql) if postgresql.user != postgresql::ROLE => {
            let lines = role_lines(postgresql);
            if remedy::is_nixos() {
                say!(
                    "for backups by this role, let services.gitlab-backup.settings.postgresql of the system's configuration have"
                );
                text::out("");
                text::out(&lines.replace('\n', ";\n"));
            } else {
                say!(
                    "{} is left as it is. For backups by this role, let its [postgresql] have",
                    path.display()
                );
                text::out("");
                text::out(&lines);
            }
            say!("then '{}' and 'gitlab-backup check'", remedy::install());
        }
        _ => say!("{} names the role already", path.display()),
    }
    Ok(())
}

/// Makes the role that backs up, and tells how.
async fn make_role(config: &Config) -> Result<()> {
    let postgresql = config
        .postgresql
        .as_ref()
        .context("[postgresql] enable is false: there is no server to make a role on")?;
    for statement in postgresql::create_role(postgresql).await? {
        note!("ran: {statement};");
    }
    Ok(())
}

/// What names the role that backs up, and the one that restores.
fn role_lines(postgresql: &Postgresql) -> String {
    lines_of(postgresql::ROLE, &postgresql.restore_user, &postgresql.restore_os_user)
}

fn lines_of(role: &str, restore: &str, restore_os: &str) -> String {
    let [role, restore, restore_os] = [role, restore, restore_os].map(quoted);
    format!(
        "user = {role}\nos-user = {role}\nrestore-user = {restore}\nrestore-os-user = {restore_os}\n"
    )
}

/// The first place where GitLab answers.
async fn answering() -> Option<String> {
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

/// The text. Nothing in it needs an edit; what the layout supplies stands there as a comment, so
/// that it stays the layout's.
fn describe(host: &Host, readiness: Option<&str>, role: bool) -> Result<String> {
    let name = Path::new("init");
    let (known, scripts) = match Config::parse("", name, host) {
        Ok(config) => (Some(config), Vec::new()),
        Err(error) => {
            let scripts = init_scripts(host);
            if is_recognised(host) {
                return Err(error)
                    .context("there is a GitLab here, and it cannot be backed up as it is");
            }
            if scripts.is_empty() {
                bail!(
                    "no GitLab was found here: neither units such as gitlab-runsvdir.service or gitlab-puma.service nor an init script {INIT_SCRIPTS}/gitlab*; \
                     layout = \"custom\" takes any other, see the README"
                );
            }
            (None, scripts)
        }
    };
    let mut out = String::from(
        "# Made by 'gitlab-backup init' from what is on this host. What is commented out is found again at every start of the program.\n\n",
    );
    match &known {
        Some(config) => known_gitlab(&mut out, &config.gitlab),
        None => scripted_gitlab(&mut out, &scripts),
    }
    match readiness {
        Some(url) => line(&mut out, "readiness-url", &quoted(url), "answered just now: a run waits for it before it says that GitLab is back"),
        None => out.push_str("# readiness-url = \"http://127.0.0.1:8080/-/readiness\"   # nothing answered just now; with it a run waits until GitLab is usable\n"),
    }
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
        "\n[repository]\nlocation = \"/var/backups/gitlab\"   # better on another machine: with engine = \"restic\" whatever restic takes\n\n\
         # Without this section every run is kept.\n# [retention]\n# keep-daily = 7\n# keep-weekly = 4\n# keep-monthly = 6\n\n\
         # When the newest run is verified by a restore into throw-away servers.\n# [verify]\n# calendar = \"Sat 06:00\"\n",
    );
    // What is written here must be taken there.
    Config::parse(&out, name, host)
        .context("the configuration for this host is not one that can be used as it is")?;
    Ok(out)
}

fn known_gitlab(out: &mut String, gitlab: &Gitlab) {
    out.push_str("[gitlab]\n");
    line(out, "layout", &quoted(&gitlab.layout), "its unit files are on this host");
    let units: Vec<String> = gitlab.writers.iter().map(|unit| quoted(unit.as_str())).collect();
    let _ = writeln!(
        out,
        "# What can write GitLab's data and is stopped while everything is captured:\n# writers = [{}]",
        units.join(", ")
    );
    for proxy in &gitlab.proxies {
        let what = if gitlab.writers.contains(&proxy.unit()) {
            "stopped by"
        } else {
            "left up; a restore stops it by"
        };
        let _ = writeln!(
            out,
            "#   {}: {what} '{}', asked by '{}'",
            proxy.name,
            proxy.stop.join(" "),
            proxy.status.join(" ")
        );
    }
}

fn known_stores(out: &mut String, config: &Config, role: bool) {
    out.push('\n');
    if let Some(postgresql) = &config.postgresql {
        let found = format!("# host = {}\n# port = {}", quoted(&postgresql.host), postgresql.port);
        let _ = match role {
            true => {
                writeln!(
                    out,
                    "{OWN_ROLE}[postgresql]   # every database but the templates\n{found}\n{}",
                    role_lines(postgresql).trim_end()
                )
            }
            false => {
                writeln!(
                    out,
                    "{NO_ROLE}# [postgresql]   # every database but the templates\n{found}\n# user = {}",
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

/// Names of init scripts that are GitLab's.
fn init_scripts(host: &Host) -> Vec<String> {
    let entries = own::entries(host.path(INIT_SCRIPTS)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("gitlab") && !name.ends_with('~')).collect();
    names.sort();
    names
}

fn scripted_gitlab(out: &mut String, scripts: &[String]) {
    out.push_str("[gitlab]\n");
    line(
        out,
        "layout",
        "\"custom\"",
        &format!("no units of GitLab's, but {INIT_SCRIPTS}/{}", scripts.join(", ")),
    );
}

fn scripted_proxies(out: &mut String, scripts: &[String]) {
    for script in scripts {
        let proxy: String = script
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let _ = writeln!(
            out,
            "\n[[gitlab.proxy]]   # systemd does not manage it: it is stopped and asked by its own script\nname = {}",
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

fn guessed_stores(out: &mut String, host: &Host, role: bool) {
    let there = |path: &&&str| host.path(path).exists();
    let what = "[postgresql]   # every database but the templates, by the socket of the distribution's server";
    let host_line = "host = \"/var/run/postgresql\"";
    let _ = match role {
        true => writeln!(
            out,
            "\n{OWN_ROLE}{what}\n{host_line}\n{}",
            lines_of(postgresql::ROLE, SUPERUSER, SUPERUSER)
        ),
        false => writeln!(out, "\n{NO_ROLE}# {what}\n# {host_line}\n"),
    };
    match REDIS.iter().find(there) {
        Some(socket) => {
            let _ = writeln!(out, "[[redis]]   # its socket is there\nname = \"main\"\nurl = {}", quoted(&format!("unix://{socket}")));
        }
        None => out.push_str("[[redis]]   # no socket was found where it often is\nname = \"main\"\nurl = \"redis://127.0.0.1:6379\"\n"),
    }
    let paths: Vec<String> = DATA.iter().filter(there).map(|path| quoted(path)).collect();
    let configuration: Vec<String> =
        DATA[4..].iter().filter(there).map(|path| quoted(path)).collect();
    let _ = writeln!(
        out,
        "\n[files]\npaths = [{}]   # what there is of GitLab's own directories",
        paths.join(", ")
    );
    let _ = writeln!(
        out,
        "configuration = [{}]   # a restore replaces these only with --with-config",
        configuration.join(", ")
    );
}

/// A key, its value, and why.
fn line(out: &mut String, key: &str, value: &str, why: &str) {
    let _ = writeln!(out, "{key} = {value}   # {why}");
}

/// A string in TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
