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
    /// Write files into this directory instead of printing.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// This program's path in the units, if not the one that runs now.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
    /// Print what to import into Zabbix instead: the items that a run is reported to.
    #[arg(long, conflicts_with_all = ["output", "program"])]
    pub zabbix_template: bool,
    /// Print the completions of this shell instead.
    #[arg(long, value_name = "SHELL", conflicts_with_all = ["output", "program", "zabbix_template"])]
    pub completion: Option<Shell>,
    /// Print the graph of the units instead: what starts, binds and stops what, by stage.
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["output", "zabbix_template", "completion", "man"])]
    pub graph: Option<Drawing>,
    /// Write the man pages into this directory instead: gitlab-backup(8), and one for each command.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "program", "zabbix_template", "completion"])]
    pub man: Option<PathBuf>,
}

/// What draws the graph.
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
    // It may be anybody's.
    let place =
        Directory::made(&std::path::absolute(directory).context("the current directory is gone")?)?;
    for file in files {
        place.replace(OsStr::new(&file.name), file.content.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Prints the template that Zabbix imports.
pub fn zabbix_template() {
    text::whole(monitoring::ZABBIX_TEMPLATE);
}

/// Prints what completes `program` in `shell`.
pub fn completion(shell: Shell, mut program: clap::Command) {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    text::whole(&String::from_utf8_lossy(&script));
}

/// The program that the units call: the one given, or the one that runs now.
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
