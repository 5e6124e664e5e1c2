//! The command line: parses arguments, sets up logging, dispatches, and turns an error into an exit
//! code.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    check, generate, helper, init, install, key, list, manual, prune, restore, run, status, verify,
};
use crate::config::Config;
use crate::config::host::Host;
use crate::exit::{self, Exit};
use crate::host::{confined, limits, log, text};
use crate::paths;
use crate::values::RunId;

/// Consistent backups of a self-managed GitLab by systemd units, which always start GitLab again.
#[derive(Debug, Parser)]
#[command(name = "gitlab-backup", version, after_help = exit::codes())]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate the configuration and check this host; each finding says what to do. Changes
    /// nothing.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Inspect this host and write a commented configuration for it. Never overwrites a file.
    Init(init::InitArgs),
    /// Print the units or write them as files; or write man pages, shell completions or a Zabbix
    /// template.
    Generate(generate::GenerateArgs),
    /// Write the units, reload systemd, and enable and start the timer. Can be repeated.
    Install(install::InstallArgs),
    /// Remove what install wrote. The configuration, the password and the repository stay.
    Uninstall(install::Installation),
    /// Start a backup, or join the running one, and follow it to its end.
    Run {
        /// Start a backup and return. Fails with exit code 4 if one is running.
        #[arg(long)]
        no_wait: bool,
        /// Print one JSON object at the end: the record of the run.
        #[arg(long)]
        json: bool,
    },
    /// Show problems, what is running now, the last runs and the timer.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the complete runs in the repository.
    List {
        /// List the runs of the host with this name instead of this host's.
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all details of one run, complete or failed.
    Show {
        /// The run's id, as list prints it.
        run: RunId,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check that a run can be restored: the repository, every dump, and a sample of the Git
    /// repositories.
    Verify(verify::VerifyArgs),
    /// Replace the data on this host by a run or a part of it; or extract a run into a directory.
    ///
    /// GitLab is stopped, and everything is extracted beside the old data. Then renames put it in
    /// place. The old data is deleted when GitLab is ready again.
    Restore(restore::RestoreArgs),
    /// Remove the runs that [retention] does not keep. Every complete backup does this too, if the
    /// configuration has that section.
    Prune {
        /// Remove nothing; print for each run whether it would be kept, and why.
        #[arg(long)]
        dry_run: bool,
        /// Confirm the removal of N complete runs. Required if more than half of the days would
        /// lose all their runs, if the clock seems to have jumped, or if fewer than keep-min runs
        /// would remain.
        #[arg(long, value_name = "N", conflicts_with = "dry_run")]
        yes_remove: Option<usize>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Manage the passwords that open the repository.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// The programs of the units.
    #[command(hide = true, subcommand)]
    Helper(helper::Helper),
}

/// Runs the program.
pub fn main() -> ExitCode {
    limits::raise();
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(log::Log)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("GITLAB_BACKUP_LOG")
                .unwrap_or_else(|_| "gitlab_backup=info,error".into()),
        )
        .init();
    // This process executes another program, so it must have no threads of a runtime.
    if let Command::Helper(helper::Helper::Confine(confine)) = &cli.command {
        let Err(error) = confined::enter(confine);
        return report(&error);
    }
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(dispatch(cli)));
    match result {
        Ok(()) if let Some(error) = text::unheard() => {
            report(&anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// The command line without the hidden commands, for man pages and completions.
fn public_commands() -> clap::Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let program = clap::Command::new("gitlab-backup").version(env!("CARGO_PKG_VERSION"));
    let program =
        program.about(all.get_about().cloned().unwrap_or_default()).subcommand_required(true);
    program.args(all.get_arguments().cloned()).subcommands(shown)
}

/// Prints the error and returns its exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    let why = text::why(error);
    let denied =
        why.to_lowercase().contains("permission denied") && !rustix::process::geteuid().is_root();
    log::failure(&if denied { format!("{why}: run it as root") } else { why });
    ExitCode::from(error.downcast_ref::<Exit>().map_or(1, |exit| exit.code))
}

async fn dispatch(cli: Cli) -> Result<()> {
    let file = cli.config;
    let load = |root: &PathBuf| -> Result<Config> { Ok(Config::load(&file, &Host::new(root))?) };
    let slash = PathBuf::from("/");
    // For commands that must work after a disaster, on a host without GitLab.
    let for_repository =
        || -> Result<Config> { Ok(Config::load_for_repository(&file, &Host::new("/"))?) };
    match cli.command {
        Command::Check { json } => check::check(load(&slash), json).await,
        Command::Init(args) => init::init(&file, &args).await,
        // The next three need no configuration.
        Command::Generate(generate::GenerateArgs { zabbix_template: true, .. }) => {
            generate::zabbix_template();
            Ok(())
        }
        Command::Generate(generate::GenerateArgs { completion: Some(shell), .. }) => {
            generate::completion(shell, public_commands());
            Ok(())
        }
        Command::Generate(generate::GenerateArgs { man: Some(directory), .. }) => {
            manual::write(public_commands(), &directory)
        }
        Command::Generate(args) => generate::generate(&load(&slash)?, &args),
        Command::Install(args) => {
            let source = Host::new(&args.installation.root).path(&file);
            let config = Config::load(&source, &Host::new(&args.installation.root))?;
            install::install(Config { source: file, ..config }, &args).await
        }
        Command::Uninstall(installation) => install::uninstall(&installation).await,
        Command::Run { no_wait, json } => run::run(no_wait, json).await,
        Command::Status { json } => status::status(json).await,
        Command::List { host, json } => list::list(&for_repository()?, host.as_deref(), json),
        Command::Show { run, json } => list::show(for_repository(), &run, json),
        Command::Verify(args) => verify::verify(&for_repository()?, &args).await,
        Command::Restore(args) if args.is_elsewhere() => {
            restore::restore(&for_repository()?, &args).await
        }
        Command::Restore(args) => restore::restore(&load(&slash)?, &args).await,
        Command::Prune { dry_run, yes_remove, json } => {
            prune::prune(&load(&slash)?, dry_run, yes_remove, json).await
        }
        Command::Key(command) => key::key(&for_repository()?, &command),
        Command::Helper(helper) => helper::helper(&file, helper).await,
    }
}
