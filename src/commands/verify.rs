//! `verify`: is what was backed up what would come back?

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{Catalog, Whose};
use crate::config::Config;
use crate::finding::{Finding, conclude};
use crate::host::{self, text};
use crate::open;
use crate::run::verify::{self, Depth};
use crate::runs::Verified;
use crate::say;
use crate::values::RunId;

/// Large, and there on every host.
pub(super) const SCRATCH: &str = "/var/tmp";

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The run; the newest complete one if left out.
    run: Option<RunId>,
    /// The newest of the host of this name, and not of this one.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    host: Option<String>,
    /// Read every byte of the repository.
    #[arg(long)]
    read_data: bool,
    /// Check every Git repository, and not a sample of ten.
    #[arg(long)]
    all_repositories: bool,
    /// Restore the dumps into a PostgreSQL and a Redis that are started for it and thrown away.
    #[arg(long)]
    drill: bool,
    /// Where dumps are laid out to be checked, and servers keep their data.
    #[arg(long, value_name = "DIR", default_value = SCRATCH)]
    scratch: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// The JSON of `verify`: fields are added, never renamed.
#[derive(Serialize)]
struct Row<'a> {
    what: &'a str,
    ok: bool,
    message: &'a str,
}

/// Verifies one run and prints each finding.
pub async fn verify(config: &Config, args: &VerifyArgs) -> Result<()> {
    let depth = Depth {
        read_data: args.read_data,
        all_repositories: args.all_repositories,
        drill: args.drill,
    };
    let scratch = std::path::absolute(&args.scratch)?;
    let mut findings = Vec::new();
    let done = recorded(
        config,
        Some((args.run.as_ref(), args.host.as_deref())),
        (depth, &scratch),
        &mut |finding| {
            if !args.json {
                say!("{finding}");
            }
            findings.push(finding);
        },
    )
    .await;
    if args.json {
        let row = |finding| {
            let Finding { what, message, .. }: &Finding = finding;
            Row { what, ok: !finding.is_wrong(), message }
        };
        text::out(&text::json(&findings.iter().map(row).collect::<Vec<_>>())?);
    }
    done
}

/// What the unit does: the newest run, as configured, with what is wrong in the journal.
pub async fn newest(config: &Config) -> Result<()> {
    let depth = Depth {
        read_data: config.verify.read_data,
        all_repositories: config.verify.all_repositories,
        drill: config.verify.drill,
    };
    let mut findings = Vec::new();
    let done =
        recorded(config, None, (depth, Path::new(SCRATCH)), &mut |finding| findings.push(finding))
            .await;
    conclude(&findings)?;
    done
}

/// Verifies, and keeps how it went for `status`: of a run of this host, and of what the unit could
/// not even begin. What is `asked` by hand and comes to no such run says nothing of this host's.
async fn recorded(
    config: &Config,
    asked: Option<(Option<&RunId>, Option<&str>)>,
    how: (Depth, &Path),
    tell: &mut dyn FnMut(Finding),
) -> Result<()> {
    let (depth, _) = how;
    let mut record = Verified {
        run: None,
        started: Timestamp::now(),
        finished: None,
        drill: depth.drill,
        read_data: depth.read_data,
        ok: false,
        wrong: Vec::new(),
    };
    let mut wrong = Vec::new();
    let looked = look(config, asked.unwrap_or_default(), how, &mut record, &mut |finding| {
        wrong.extend(finding.is_wrong().then(|| finding.clone()));
        tell(finding);
    })
    .await;
    if let Err(error) = &looked {
        wrong.push(Finding::of("verify", Err(anyhow::anyhow!("{error:#}"))));
    }
    record.finished = Some(Timestamp::now());
    record.ok = wrong.is_empty();
    record.wrong = wrong;
    // Not everybody who can read the repository can write here, and the findings are told all the
    // same.
    if (asked.is_none() || record.run.is_some())
        && let Err(error) = record.save()
    {
        tracing::warn!("{error:#}: 'gitlab-backup status' will not tell of this");
    }
    looked?;
    if !record.ok {
        bail!("a restore could not be relied upon: {} wrong", record.wrong.len());
    }
    Ok(())
}

async fn look(
    config: &Config,
    (id, of_host): (Option<&RunId>, Option<&str>),
    (depth, scratch): (Depth, &Path),
    record: &mut Verified,
    tell: &mut dyn FnMut(Finding),
) -> Result<()> {
    let engine = open::required(config)?;
    let catalog = Catalog::read(&*engine, Whose::asked(of_host, id))?;
    if id.is_none() {
        // A newer run than the one that is looked at may be among them.
        catalog.unusable().for_each(|(run, why)| {
            tell(Finding::of(format!("run {run}"), Err(anyhow::anyhow!("{why}"))))
        });
    }
    let run = catalog.pick(id)?;
    if run.manifest.host == host::name() {
        record.run = Some(run.manifest.id.clone());
        // Should it be cut off.
        let _ = record.save();
    }
    verify::verify(config, &*engine, run, (depth, scratch), tell).await
}
