//! The repository: snapshots in restic's format, each tagged with its run and part. Knows nothing
//! of units or stages.

mod builtin;
mod engine;
mod environment;
mod local;
mod restic;
pub mod retention;

use std::path::Path;

use anyhow::Result;

use crate::config::{self, EngineName};

pub use engine::{
    Engine, Files, Key, Progress, Reader, Snapshot, StoreRequest, Stored, Tolerance, patience,
};

/// On every snapshot of ours.
const TAG: &str = "gitlab-backup";
/// Before the run's id.
const RUN_TAG: &str = "run=";
/// Before the part's name.
const PART_TAG: &str = "part=";

/// Judges a password before there is a repository that it could open.
///
/// # Errors
/// If it is none, or restic would read another.
pub fn judge_password(file: &Path) -> Result<()> {
    builtin::read_password(file).map(drop)
}

/// The engine that `config` names; `password_file` is where this process can read the password,
/// `environment_file` where it can read the variables for restic. `key_file` keeps the key between
/// the processes of one run, where the engine has a use for it; whoever names it removes it.
///
/// # Errors
/// If the variables cannot be read.
pub fn open(
    config: &config::Repository,
    password_file: &Path,
    environment_file: Option<&Path>,
    key_file: Option<&Path>,
) -> Result<Box<dyn Engine>> {
    Ok(match config.engine {
        EngineName::Builtin => {
            Box::new(builtin::Builtin::new(&config.location, password_file, key_file))
        }
        EngineName::Restic => {
            let environment =
                environment_file.map(environment::read).transpose()?.unwrap_or_default();
            Box::new(restic::Restic::new(&config.location, password_file, environment))
        }
    })
}
