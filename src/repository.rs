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

/// The tag of every snapshot that this program creates.
const TAG: &str = "gitlab-backup";
/// The prefix of the tag with the run's ID.
const RUN_TAG: &str = "run=";
/// The prefix of the tag with the part's name.
const PART_TAG: &str = "part=";

/// Checks that a file holds a password that this program and restic read alike, before there is a
/// repository that it opens.
///
/// # Errors
/// If the file cannot be read, is empty or too large, or if restic would read another password.
pub fn check_password(file: &Path) -> Result<()> {
    builtin::read_password(file).map(drop)
}

/// The engine that `config` names.
///
/// This process reads the password from `password_file` and the variables for restic from
/// `environment_file`. The built-in engine keeps the key in `key_file` between the processes of one
/// run; the caller removes that file.
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
