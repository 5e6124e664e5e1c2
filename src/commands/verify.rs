//! `verify`: checks that a run can be restored.

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
use crate::paths::RootDirectory;
use crate::run::verify::{self, Depth};
use crate::runs::Verified;
use crate::say;
use crate::values::RunId;

/// The default of `--scratch`: a directory on disk that every host has.
pub(super) const SCRATCH: &str = "/var/tmp";

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The run to verify. Default: the newest complete run.
    run: Option<RunId>,
    /// Verify the newest run of the host with this name instead of this host's.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    host: Option<String>,
    /// Read every byte of the repository.
    #[arg(long)]
    read_data: bool,
    /// Check every Git repository instead of a sample of ten.
    #[arg(long)]
    all_repositories: bool,
    /// Restore the dumps into a temporary PostgreSQL and a temporary Redis.
    #[arg(long)]
    drill: bool,
    /// The directory for extracted dumps and for the data of temporary servers.
    #[arg(long, value_name = "DIR", default_value = SCRATCH)]
    scratch: PathBuf,
    /// Print JSON.
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
    let result = verify_and_record(
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
    result
}

/// The program of the verification's unit: verifies the newest run as configured in `[verify]`, and
/// logs the findings.
pub async fn newest(config: &Config) -> Result<()> {
    let depth = Depth {
        read_data: config.verify.read_data,
        all_repositories: config.verify.all_repositories,
        drill: config.verify.drill,
    };
    let mut findings = Vec::new();
    let result = verify_and_record(config, None, (depth, Path::new(SCRATCH)), &mut |finding| {
        findings.push(finding)
    })
    .await;
    conclude(&findings)?;
    result
}

/// Verifies a run, and records the result for `status`. `asked` has the run and the host of a
/// command, and is `None` for the unit. A command that finds no run of this host is not recorded; a
/// unit is recorded always.
async fn verify_and_record(
    config: &Config,
    asked: Option<(Option<&RunId>, Option<&str>)>,
    how: (Depth, &Path),
    report: &mut dyn FnMut(Finding),
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
    let result = verify_run(config, asked.unwrap_or_default(), how, &mut record, &mut |finding| {
        wrong.extend(finding.is_wrong().then(|| finding.clone()));
        report(finding);
    })
    .await;
    if let Err(error) = &result {
        wrong.push(Finding::of("verify", Err(anyhow::anyhow!("{error:#}"))));
    }
    record.finished = Some(Timestamp::now());
    record.ok = wrong.is_empty();
    record.wrong = wrong;
    // A user who can read the repository may not be allowed to write the record.
    if (asked.is_none() || record.run.is_some())
        && let Err(error) = record.save(&RootDirectory::host())
    {
        tracing::warn!("{error:#}: 'gitlab-backup status' will not show this verification");
    }
    result?;
    if !record.ok {
        bail!("verification failed: {} errors (do not rely on this run)", record.wrong.len());
    }
    Ok(())
}

/// Chooses the run and verifies it. Records its name as soon as it is known.
async fn verify_run(
    config: &Config,
    (id, of_host): (Option<&RunId>, Option<&str>),
    (depth, scratch): (Depth, &Path),
    record: &mut Verified,
    report: &mut dyn FnMut(Finding),
) -> Result<()> {
    let root = &RootDirectory::host();
    let engine = open::required(config, root)?;
    let catalog = Catalog::read(&*engine, Whose::asked(of_host, id), root)?;
    if id.is_none() {
        // A damaged run may be newer than the one that is verified.
        catalog.unusable().for_each(|(run, why)| {
            report(Finding::of(format!("run {run}"), Err(anyhow::anyhow!("{why}"))))
        });
    }
    let run = catalog.pick(id, Timestamp::now())?;
    if run.manifest.host == host::name() {
        record.run = Some(run.manifest.id.clone());
        // `status` shows the record without an end if the verification is cut off.
        let _ = record.save(root);
    }
    verify::verify(config, root, &*engine, run, (depth, scratch), report).await
}
