//! `generate --man`: the man pages, from the texts of `--help`.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::exit;
use crate::host::beneath::Directory;
use crate::paths;

/// Administration, hier(7).
const SECTION: &str = "8";

/// What an admin may look for.
const FILES: [(&str, &str); 6] = [
    (
        paths::CONFIG,
        "The configuration, in TOML; gitlab-backup init writes one with every key that this host needs, and why.",
    ),
    (
        paths::PASSWORD,
        "The password that opens the repository, made by gitlab-backup install. Keep a copy elsewhere.",
    ),
    ("/etc/systemd/system/gitlab-backup*", "The units, written by gitlab-backup install."),
    (
        paths::STATE,
        "The records of the runs, cached manifests, and what a run stages on its way into the repository.",
    ),
    (paths::RESTORED_CONFIGURATION, "Configuration that a restore has laid out to be compared."),
    (paths::RUNTIME, "What goes on now."),
];

/// Read by every command.
const ENVIRONMENT: [(&str, &str); 1] = [(
    "GITLAB_BACKUP_LOG",
    "What is logged, as tracing_subscriber's EnvFilter reads it: gitlab_backup=debug tells more. gitlab_backup=info,error if it is not set.",
)];

const EXAMPLES: [(&str, &str); 5] = [
    ("gitlab-backup init && gitlab-backup install && gitlab-backup check", "Begin on a new host."),
    (
        "systemctl start gitlab-backup.target",
        "Back up now, as the timer does. gitlab-backup run shows how it goes.",
    ),
    ("gitlab-backup status", "What is wrong, what goes on, what came last."),
    (
        "gitlab-backup restore --into /srv/restored",
        "Lay the newest run out, and touch nothing live.",
    ),
    ("journalctl -p warning -u 'gitlab-backup*'", "What the units had to say."),
];

const SEE_ALSO: &str = "systemctl(1), journalctl(1), systemd.timer(5), systemd.time(7), pg_dump(1), redis-cli(1), restic(1), gitignore(5)";

/// Writes the page of `program` and of each of its commands.
///
/// # Errors
/// `directory` cannot be made or written to.
pub fn write(program: Command, directory: &Path) -> Result<()> {
    let place =
        Directory::made(&std::path::absolute(directory).context("the current directory is gone")?)?;
    for (name, page) in pages(program)? {
        place.replace(OsStr::new(&name), page.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The name of each page's file, and its text.
fn pages(program: Command) -> Result<Vec<(String, String)>> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        pages.push(page(command)?);
    }
    Ok(pages)
}

fn page(command: Command) -> Result<(String, String)> {
    let is_program = command.get_display_name().is_none_or(|name| name == command.get_name());
    let has_commands = command.has_subcommands();
    let man = Man::new(command).section(SECTION);
    let file = man.get_filename();
    let name = file.strip_suffix(".8").unwrap_or(&file);
    // Without a date, which the library cannot leave out.
    let source = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let mut text =
        format!(".TH {name} {SECTION} \"\" \"{source}\" \"GitLab backup\"\n").into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut end = Roff::new();
    let codes = exit::CODES.map(|(code, meaning)| (code.to_string(), meaning));
    if is_program {
        list(
            &mut end,
            "EXIT STATUS",
            codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)),
        );
        list(&mut end, "FILES", FILES);
        list(&mut end, "ENVIRONMENT", ENVIRONMENT);
        list(&mut end, "EXAMPLES", EXAMPLES);
    }
    end.control("SH", ["SEE ALSO"]);
    end.text([roman(if is_program {
        SEE_ALSO.to_owned()
    } else {
        format!("gitlab-backup({SECTION}), for exit codes and files")
    })]);
    end.to_writer(&mut text)?;
    Ok((file, String::from_utf8(text)?))
}

/// A section of terms, each with what it means.
fn list<'a>(roff: &mut Roff, name: &str, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    roff.control("SH", [name]);
    for (term, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(meaning)]);
    }
}
