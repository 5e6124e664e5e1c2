//! Verifies the files of a run: its hard links, and a sample of its Git repositories.

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
use git::GitChecker;

/// How many Git repositories a sample has.
const SAMPLE: usize = 10;

/// Reports a finding on the hard links, and one on each Git repository: of a sample, or of all if
/// the inspection's depth asks for them.
pub(super) fn verify(inspection: &mut Inspection<'_>, part: &Part, place: &Path) -> Result<()> {
    let hard_links = check_hard_links(inspection.engine, part);
    hard_links.into_iter().for_each(|finding| inspection.report(finding));
    let all = match git::list_repositories(inspection.engine, part) {
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
    let mut checker = GitChecker::new(config, part, place, scratch, user.as_ref())?;
    for path in git::sample(&all, (!depth.all_repositories).then_some(SAMPLE)) {
        report(Finding::of(format!("git {}", text::path(path)), checker.fsck(path)));
    }
    checker.finish()
}

/// Checks that no name is taken for a hard link of a file on another file system, which would give
/// it that file's content. `None` if the engine cannot tell.
fn check_hard_links(engine: &dyn Engine, part: &Part) -> Option<Finding> {
    let checked = match engine.count_false_links(&part.snapshot) {
        Ok(None) => return None,
        Ok(Some(0)) => Ok("every name of a file leads to its content".to_owned()),
        Ok(Some(count)) => Err(anyhow!(
            "{count} names are taken for another file, of another file system: 'restic restore' \
             gives them its content, 'gitlab-backup restore' with engine 'builtin' their own; the \
             next run has them right"
        )),
        Err(error) => Err(error),
    };
    Some(Finding::of("hard links", checked))
}

/// Checks that Git is installed and that the account that it runs as exists. A new host to which
/// files are restored may have neither.
///
/// # Errors
/// If one of them is missing.
pub fn ensure_git_installed() -> Result<()> {
    user::sandbox()?;
    git::program().map(drop)
}

/// Runs `git fsck` on the repository at `path` of a part, as the sandbox account.
///
/// # Errors
/// If `git fsck` finds errors, or cannot run.
pub fn fsck(config: &Config, part: &Part, path: &Path, scratch: &Path) -> Result<String> {
    let user = user::sandbox()?;
    let scratch = Scratch::new(scratch)?;
    let place = scratch.create_place(&part.name)?;
    let mut checker = GitChecker::new(config, part, &place, &scratch, user.as_ref())?;
    let checked = checker.fsck(path);
    checker.finish()?;
    scratch.remove()?;
    checked
}
