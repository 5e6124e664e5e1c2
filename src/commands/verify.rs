//! `verify`: is what was backed up what would come back?

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::steps::open;
use crate::steps::verify::{self, Depth};
use crate::values::RunId;

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The run; the newest complete one if left out.
    run: Option<RunId>,
    /// Read every byte of the repository.
    #[arg(long)]
    read_data: bool,
    /// Check every Git repository, and not a sample of ten.
    #[arg(long)]
    all_repositories: bool,
    /// Where dumps are laid out to be checked.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// The JSON of `verify`: fields are added, never renamed.
#[derive(Serialize)]
struct Finding {
    what: String,
    ok: bool,
    message: String,
}

/// Verifies one run and prints each finding.
pub fn verify(config: &Config, args: &VerifyArgs) -> Result<()> {
    let engine = open::outside(config)?;
    let catalog = Catalog::read(&*engine)?;
    let run = catalog.pick(args.run.as_ref())?;
    let depth = Depth { read_data: args.read_data, repositories: (!args.all_repositories).then_some(10) };
    let mut findings = Vec::new();
    let good = verify::verify(config, &*engine, run, depth, &args.scratch, &mut |what, result| {
        let (ok, message) = match result {
            Ok(seen) => (true, seen.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        if !args.json {
            println!("{:<5} {what}: {message}", if ok { "ok" } else { "WRONG" });
        }
        findings.push(Finding { what: what.to_owned(), ok, message });
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    }
    if !good {
        bail!("run {} is not what it should be", run.manifest.id);
    }
    Ok(())
}
