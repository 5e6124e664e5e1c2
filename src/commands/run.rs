//! `run`: starts a backup and follows it. systemd runs the backup, so that interrupting this
//! command does not interrupt the backup.

use anyhow::{Result, bail};

use crate::exit::{ALREADY_RUNNING, Exit};
use crate::host::{remedy, text};
use crate::note;
use crate::paths::RootDirectory;
use crate::runs::{Kind, Record};
use crate::systemd::{Manager, Mode, ServiceManager};
use crate::units::{Restore, Unit};

use super::follow::{ensure_succeeded, follow};

/// Starts the target and follows the run to its end.
pub async fn run(no_wait: bool, json: bool) -> Result<()> {
    let manager = Manager::connect().await?;
    let executor = Unit::Run.to_string();
    let state = manager.state(&executor).await?;
    if state.load == "masked" {
        bail!("{executor} is masked, so no run can start: {}", remedy::unmask(&executor));
    }
    if state.load != "loaded" {
        bail!("{executor} is not installed: '{}' first", remedy::install());
    }
    if !manager.state(&Unit::from(Restore::Run).to_string()).await?.is_settled() {
        return Err(
            Exit { code: ALREADY_RUNNING, message: "a restore is going on".to_owned() }.into()
        );
    }
    let joined = !state.is_settled();
    let before = Record::current(&RootDirectory::host())?;
    if joined && no_wait {
        return Err(Exit {
            code: ALREADY_RUNNING,
            message: "a backup is already going on".to_owned(),
        }
        .into());
    }
    if joined {
        note!("a backup is already going on: following it");
    } else {
        manager.keep(&executor).await?;
        manager.reset_failed(&executor).await?;
        manager.start(&Unit::Target.to_string(), Mode::Replace).await?;
    }
    if no_wait {
        return Ok(());
    }
    let record =
        follow(&manager, Kind::Backup, if joined { None } else { before.as_ref() }).await?;
    if json {
        text::out(&text::json(&record)?);
    }
    ensure_succeeded(&format!("run {}", record.id), &record)?;
    record.warnings.iter().for_each(|warning| note!("warning: {warning}"));
    note!("run {} is complete; {}", record.id, record.outage());
    Ok(())
}
