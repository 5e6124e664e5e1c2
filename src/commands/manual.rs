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

/// The section FILES.
const FILES: [(&str, &str); 6] = [
    (
        paths::CONFIG,
        "The configuration, in TOML. gitlab-backup init writes one for this host, with comments.",
    ),
    (
        paths::PASSWORD,
        "The password of the repository, created by gitlab-backup install. Keep a copy on another \
         host.",
    ),
    ("/etc/systemd/system/gitlab-backup*", "The units, written by gitlab-backup install."),
    (paths::STATE, "The records of runs, cached manifests, and the staging directory of a run."),
    (
        paths::RESTORED_CONFIGURATION,
        "Configuration that a restore extracted without replacing the current one, for comparison.",
    ),
    (paths::RUNTIME, "The state of running backups and restores."),
];

/// The section ENVIRONMENT.
const ENVIRONMENT: [(&str, &str); 1] = [(
    "GITLAB_BACKUP_LOG",
    "The log filter, in the syntax of tracing_subscriber's EnvFilter. gitlab_backup=debug logs \
     more; the default is gitlab_backup=info,error.",
)];

const EXAMPLES: [(&str, &str); 5] = [
    ("gitlab-backup init && gitlab-backup install && gitlab-backup check", "Set up a new host."),
    (
        "systemctl start gitlab-backup.target",
        "Start a backup now, as the timer does. gitlab-backup run also shows its progress.",
    ),
    ("gitlab-backup status", "Show problems, what is running now and the last runs."),
    (
        "gitlab-backup restore --into /srv/restored",
        "Extract the newest run into a directory. Changes nothing live.",
    ),
    ("journalctl -p warning -u 'gitlab-backup*'", "Show warnings and errors of the units."),
];

const SEE_ALSO: &str = "systemctl(1), journalctl(1), systemd.timer(5), systemd.time(7), \
                        pg_dump(1), redis-cli(1), restic(1), gitignore(5)";

/// Writes the man page of `program`, and one for each of its commands.
///
/// # Errors
/// If `directory` cannot be created or written to.
pub fn write(program: Command, directory: &Path) -> Result<()> {
    let directory = Directory::made(
        &std::path::absolute(directory).context("the current directory does not exist")?,
    )?;
    for (name, page) in pages(program)? {
        directory.replace(OsStr::new(&name), page.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The file name and the text of each page.
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
    // The library's own title line would contain a date.
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

/// A section of terms with their meanings.
fn list<'a>(roff: &mut Roff, name: &str, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    roff.control("SH", [name]);
    for (term, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(meaning)]);
    }
}
