//! The command line: parse, log, dispatch, and turn an error into an exit code.

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

/// Consistent backups of a self-managed GitLab, as systemd units that give GitLab back.
#[derive(Debug, Parser)]
#[command(name = "gitlab-backup", version, after_help = exit::codes())]
pub struct Cli {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate the configuration and this host, and say what to do about each finding; changes
    /// nothing.
    Check {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at this host and write a commented configuration with what was found and why; never
    /// over another.
    Init(init::InitArgs),
    /// Print the units, or write them as files; or what a package ships: man pages, completions, a
    /// template for Zabbix.
    Generate(generate::GenerateArgs),
    /// Write the units, reload systemd, enable and start the timer; doing it again changes nothing.
    Install(install::InstallArgs),
    /// Remove what install wrote, and nothing else; the configuration, the password and the
    /// repository stay.
    Uninstall(install::InstallArgs),
    /// Start a backup and follow it; joins one that is going on.
    Run {
        /// Start it and return; fails with exit code 4 if one is going on.
        #[arg(long)]
        no_wait: bool,
        /// One JSON object at the end: the record of the run.
        #[arg(long)]
        json: bool,
    },
    /// What goes on now, what came last, what comes next.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// The complete runs in the repository.
    List {
        /// Those of the host of this name, and not of this one.
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// One run in full; a failed one too.
    Show {
        /// The run's id, as list prints it.
        run: RunId,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check that a run could be restored: the repository, every dump, a sample of the Git
    /// repositories.
    Verify(verify::VerifyArgs),
    /// Put a run, or a part of it, in place of what is there; or lay it out in a directory.
    ///
    /// Everything is laid out beside what is there first, with GitLab down; then renames put it in
    /// place, and what was there goes when GitLab answers again.
    Restore(restore::RestoreArgs),
    /// Remove the runs that [retention] no longer asks for; a backup does so by itself when it is
    /// complete.
    Prune {
        /// Remove nothing, and tell each run's fate and its reasons.
        #[arg(long)]
        dry_run: bool,
        /// Agree to the removal of so many complete runs: asked for where more than half would go,
        /// or fewer than keep-min be left.
        #[arg(long, value_name = "N", conflicts_with = "dry_run")]
        yes_remove: Option<usize>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// The passwords that open the repository.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// What the units execute.
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
    // Becomes another program: no thread of a runtime may be there.
    if let Command::Helper(helper::Helper::Confine(confine)) = &cli.command {
        let Err(error) = confined::enter(confine);
        return failed(&error);
    }
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(dispatch(cli)));
    match result {
        Ok(()) if let Some(error) = text::unheard() => {
            failed(&anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// The command line without what the units call.
fn for_admins() -> clap::Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let program = clap::Command::new("gitlab-backup").version(env!("CARGO_PKG_VERSION"));
    let program =
        program.about(all.get_about().cloned().unwrap_or_default()).subcommand_required(true);
    program.args(all.get_arguments().cloned()).subcommands(shown)
}

fn failed(error: &anyhow::Error) -> ExitCode {
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
    // On a host without GitLab too, after a disaster.
    let stored = || -> Result<Config> { Ok(Config::load_for_repository(&file, &Host::new("/"))?) };
    match cli.command {
        Command::Check { json } => check::check(load(&slash), json).await,
        Command::Init(args) => init::init(&file, &args).await,
        // For any host: no configuration is read.
        Command::Generate(generate::GenerateArgs { zabbix_template: true, .. }) => {
            generate::zabbix_template();
            Ok(())
        }
        Command::Generate(generate::GenerateArgs { completion: Some(shell), .. }) => {
            generate::completion(shell, for_admins());
            Ok(())
        }
        Command::Generate(generate::GenerateArgs { man: Some(directory), .. }) => {
            manual::write(for_admins(), &directory)
        }
        Command::Generate(args) => generate::generate(&load(&slash)?, &args),
        Command::Install(args) => {
            let source = Host::new(&args.root).path(&file);
            let config = Config::load(&source, &Host::new(&args.root))?;
            install::install(Config { source: file, ..config }, &args).await
        }
        Command::Uninstall(args) => install::uninstall(&args).await,
        Command::Run { no_wait, json } => run::run(no_wait, json).await,
        Command::Status { json } => status::status(json).await,
        Command::List { host, json } => list::list(&stored()?, host.as_deref(), json),
        Command::Show { run, json } => list::show(stored(), &run, json),
        Command::Verify(args) => verify::verify(&stored()?, &args).await,
        Command::Restore(args) if args.is_elsewhere() => restore::restore(&stored()?, &args).await,
        Command::Restore(args) => restore::restore(&load(&slash)?, &args).await,
        Command::Prune { dry_run, yes_remove, json } => {
            prune::prune(&load(&slash)?, dry_run, yes_remove, json).await
        }
        Command::Key(command) => key::key(&stored()?, &command),
        Command::Helper(helper) => helper::helper(&file, helper).await,
    }
}
