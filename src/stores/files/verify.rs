//! The files of a run, read back: its links, and a sample of its Git repositories.

mod git;

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::config::Config;
use crate::finding::Finding;
use crate::host::{text, user};
use crate::repository::Engine;
use crate::runs::Part;
use crate::stores::inspection::Inspection;
use crate::stores::inspection::scratch::Scratch;
use git::Desk;

/// How many Git repositories are a sample.
const SAMPLE: usize = 10;

/// Reports on the links, and on each repository of the sample.
pub(super) fn verify(inspection: &mut Inspection<'_>, part: &Part, place: &Path) -> Result<()> {
    links(inspection.engine, part).into_iter().for_each(|finding| inspection.report(finding));
    let all = match git::repositories(inspection.engine, part) {
        Ok(all) => all,
        Err(error) => {
            inspection.report(Finding::of("git repositories", Err(error)));
            return Ok(());
        }
    };
    if all.is_empty() {
        return Ok(());
    }
    let Inspection { config, depth, user, scratch, report, .. } = inspection;
    let mut desk = Desk::new(config, part, place, scratch, user.as_ref())?;
    for path in git::sample(&all, (!depth.all_repositories).then_some(SAMPLE)) {
        report(Finding::of(format!("git {}", text::path(path)), desk.fsck(path)));
    }
    desk.clear()
}

/// Whether every name of a file leads to what that file holds. Nothing where the engine cannot
/// tell.
fn links(engine: &dyn Engine, part: &Part) -> Option<Finding> {
    let seen = match engine.count_false_links(&part.snapshot) {
        Ok(None) => return None,
        Ok(Some(0)) => Ok("every name of a file leads to its content".to_owned()),
        Ok(Some(count)) => Err(anyhow!(
            "{count} names are taken for another file, of another file system: 'restic restore' gives them its content, \
            'gitlab-backup restore' with engine 'builtin' their own; the next run has them right"
        )),
        Err(error) => Err(error),
    };
    Some(Finding::of("hard links", seen))
}

/// Whether Git is installed, and the account that it runs as exists: a host on which nothing is
/// installed yet may have neither.
///
/// # Errors
/// With what is missing.
pub fn git_is_there() -> Result<()> {
    user::sandbox()?;
    git::program().map(drop)
}

/// Has Git check one repository of a part, as the account that looks at other people's data.
///
/// # Errors
/// If it is not whole, or cannot be looked at.
pub fn fsck(config: &Config, part: &Part, path: &Path, scratch: &Path) -> Result<String> {
    let user = user::sandbox()?;
    let scratch = Scratch::new(scratch)?;
    let place = scratch.create_place(&part.name)?;
    let mut desk = Desk::new(config, part, &place, &scratch, user.as_ref())?;
    let seen = desk.fsck(path);
    desk.clear()?;
    scratch.remove()?;
    seen
}
