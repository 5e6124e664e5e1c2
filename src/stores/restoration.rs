//! A restore, as every store takes part in it.
//!
//! The order is that of `src/restore/`: [`plan`](Restoration::plan) before GitLab is
//! touched; then the units of the stores stage the new beside the old; then, for every store,
//! [`prepare`](Restoration::prepare), [`put`](Restoration::put) and
//! [`commit`](Restoration::commit). Whatever fails on this way is taken back. When GitLab answers,
//! [`finish`](Restoration::finish) removes the old.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use async_trait::async_trait;

use super::{extract, moves};
use crate::config::Config;
use crate::host::secret;
use crate::paths;
use crate::repository::Engine;
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, Leftover, Request, RestorePlan};
use crate::runs::{Manifest, Part};
use crate::stores::space::Needed;
use crate::systemd::ServiceManager;
use crate::units::render::credential;

/// What a store plans by.
pub struct Asked<'a> {
    /// What the admin asked for.
    pub request: &'a Request,
    /// The run.
    pub manifest: &'a Manifest,
    /// The store's part of it.
    pub part: &'a Part,
    /// systemd.
    pub manager: &'a dyn ServiceManager,
}

/// Why the old did not come back.
pub struct Refused {
    /// The reason.
    pub error: Error,
    /// It is certain that nothing was changed: what was restored is still in place, whole.
    pub untouched: bool,
}

/// One store's side of a restore. A method without a body of its own means that the store has
/// nothing to do at that point. Each can be called again by a restore that goes on where another
/// was killed.
#[async_trait(?Send)]
pub trait Restoration {
    /// Whether the request wants anything of the part.
    fn is_wanted(&self, request: &Request) -> bool;

    /// Finds out whether the part can be restored here, and adds to the plan how.
    async fn plan(&mut self, asked: &Asked<'_>, plan: &mut RestorePlan) -> Result<()>;

    /// Tries what only a try can show, with GitLab up. Leaves nothing.
    async fn rehearse(&mut self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Adds the space that the plan needs. `only` is the path that is asked for, if not everything
    /// is.
    fn space(
        &self,
        plan: &RestorePlan,
        engine: &dyn Engine,
        only: Option<&Path>,
        needed: &mut Needed,
    ) -> Result<()>;

    /// Removes what no journal knows any more and is in the way of the plan.
    async fn clear(&mut self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Creates the directories beside what is live. The journal is written before and after.
    fn begin(&mut self, _plan: &mut RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Extracts the dumps that the plan needs, for the unit that loads them.
    fn extract_dumps(&self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Stops what holds the old data.
    async fn down(&mut self, _plan: &RestorePlan, _manager: &dyn ServiceManager) -> Result<()> {
        Ok(())
    }

    /// Writes down in the journal what [`put`](Self::put) is going to change. Nothing live has
    /// changed so far.
    async fn prepare(&mut self, journal: &mut Journal) -> Result<()>;

    /// Puts the new in place of the old.
    async fn put(&mut self, journal: &Journal, manager: &dyn ServiceManager) -> Result<()>;

    /// Makes final what [`put`](Self::put) has only begun. Comes when every store has put.
    async fn commit(&mut self, _journal: &Journal) -> Result<()> {
        Ok(())
    }

    /// Takes back what [`put`](Self::put) has begun and nobody has committed.
    async fn roll_back(&mut self) {}

    /// Proves that the old can come back.
    ///
    /// # Errors
    /// If some of it is gone. Nothing was touched.
    async fn prove(&mut self, journal: &Journal) -> Result<()>;

    /// Takes from the journal the old that cannot come back any more. A restore that is done again
    /// does not need it. Returns why, for each.
    fn forgo(&self, _journal: &mut Journal) -> Vec<String> {
        Vec::new()
    }

    /// Brings the old back where others can refuse it. Called for every store before
    /// [`move_back`](Self::move_back) is called for any: either all of it happens, or nothing.
    async fn call_back(&mut self, _journal: &Journal) -> Result<(), Refused> {
        Ok(())
    }

    /// Brings the old back by renames, which nobody else can refuse.
    fn move_back(&self, _journal: &Journal) -> Result<()> {
        Ok(())
    }

    /// Starts again what [`down`](Self::down) stopped, and waits until it has read its data.
    async fn up(&mut self, _plan: &RestorePlan, _manager: &dyn ServiceManager) -> Result<()> {
        Ok(())
    }

    /// Removes what was staged.
    async fn unstage(&mut self, plan: &RestorePlan) -> Result<()>;

    /// Removes the old. Returns what could not be removed.
    async fn finish(&mut self, journal: &Journal) -> Result<Vec<Leftover>>;

    /// Tries again to remove what an earlier [`finish`](Self::finish) left, if that was this
    /// store's. Returns what is still left.
    async fn retry(&mut self, _leftover: &Leftover) -> Option<Option<Leftover>> {
        None
    }
}

/// Every store's side of a restore, in the order in which they are put in place.
pub fn all(config: &Config) -> Vec<Box<dyn Restoration + '_>> {
    super::all().map(|store| store.restoration(config)).into()
}

/// The plan of the restore that is running. Units that are not root get it as a credential.
pub fn plan() -> Result<RestorePlan> {
    let path =
        secret::given(credential::RESTORE_PLAN).unwrap_or_else(|| paths::RESTORE_PLAN.into());
    read_json(&path)?.context("nothing is planned: this helper is started by its unit only")
}

/// The only directory of a part of dumps, where it is extracted.
pub(super) fn dump_directory(part: &Part) -> Result<PathBuf> {
    let path = part
        .paths
        .first()
        .with_context(|| format!("part '{}' of the run has no path", part.name))?;
    Ok(Path::new(paths::RESTORE_DUMPS).join(moves::below(path)))
}

/// Extracts `paths` of a part of dumps; all of it if there are none.
pub(super) fn extract_part(config: &Config, part: &Part, paths: &[PathBuf]) -> Result<()> {
    extract::in_child(config, &part.snapshot, Path::new(paths::RESTORE_DUMPS), paths)
        .with_context(|| format!("part '{}' cannot be laid out", part.name))
}
