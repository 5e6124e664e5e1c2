//! `generate`: the units on stdout as `systemctl cat` shows them, or as files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::text;
use crate::monitoring;
use crate::units::{self, graph};

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Write the units as files into DIR instead of printing them.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// The path of this program in the units. Default: the path of the running program.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
    /// Print a template to import into Zabbix, with the items for reports.
    #[arg(long, conflicts_with_all = ["output", "program"])]
    pub zabbix_template: bool,
    /// Print the completion script for SHELL.
    #[arg(
        long,
        value_name = "SHELL",
        conflicts_with_all = ["output", "program", "zabbix_template"]
    )]
    pub completion: Option<Shell>,
    /// Print a graph of the units by stage, with their dependencies.
    #[arg(
        long,
        value_name = "FORMAT",
        conflicts_with_all = ["output", "zabbix_template", "completion", "man"]
    )]
    pub graph: Option<Drawing>,
    /// Write the man pages into DIR: gitlab-backup(8), and one for each command.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["output", "program", "zabbix_template", "completion"]
    )]
    pub man: Option<PathBuf>,
}

/// The format of the graph.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Drawing {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// Prints or writes the units of `config`, or prints their graph.
pub fn generate(config: &Config, args: &GenerateArgs) -> Result<()> {
    let program = program(args.program.as_deref())?;
    if let Some(drawing) = args.graph {
        let format = match drawing {
            Drawing::Mermaid => graph::Format::Mermaid,
            Drawing::Dot => graph::Format::Dot,
        };
        text::whole(&graph::graph(config, &program, format)?);
        return Ok(());
    }
    let files = units::generate(config, &program)?;
    let Some(directory) = &args.output else {
        for (index, file) in files.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            text::whole(&format!("{gap}# {}\n{}", file.name, file.content));
        }
        return Ok(());
    };
    // The directory may be writable for other users.
    let directory = Directory::made(
        &std::path::absolute(directory).context("the current directory does not exist")?,
    )?;
    for file in files {
        directory.replace(OsStr::new(&file.name), file.content.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Prints the Zabbix template.
pub fn zabbix_template() {
    text::whole(monitoring::ZABBIX_TEMPLATE);
}

/// Prints the completion script of `program` for `shell`.
pub fn completion(shell: Shell, mut program: clap::Command) {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    text::whole(&String::from_utf8_lossy(&script));
}

/// The program that the units call: `given`, or else the running program.
pub(super) fn program(given: Option<&Path>) -> Result<PathBuf> {
    let program = match given {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()
            .context("cannot find this program's own path: name it with --program")?,
    };
    let text = program.to_str().context("this program's path is not valid UTF-8: move it")?;
    ensure!(program.is_absolute(), "--program {text}: an absolute path is needed");
    Ok(program)
}
