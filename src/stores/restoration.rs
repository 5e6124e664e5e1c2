//! The interface of a store in a restore.
//!
//! `src/restore/` calls the methods of [`Restoration`] in this order, each of them for every store
//! before the next one:
//!
//! | when | methods |
//! |---|---|
//! | preflight, with GitLab up | `is_wanted`, `plan`, `space`, `rehearse` |
//! | nothing live is changed, and GitLab may be up | `remove_stale`, `create_directories`, `extract_dumps`, `hand_over_dumps`; the stores' own units stage the new data |
//! | GitLab is down: the switch | `stop_servers`, `prepare`, `put`, `commit`; if one fails: `roll_back`, then the way back |
//! | the way back | `prove`, `stop_servers`, `switch_back`, `move_back`, `start_servers`, `unstage` |
//! | GitLab answers | `finish`, and `retry` for what an earlier `finish` could not remove |

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use async_trait::async_trait;

use super::{extract, moves};
use crate::config::Config;
use crate::host::secret;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::repository::Engine;
use crate::runs::record::read_json;
use crate::runs::restore::{Leftover, Request, RestoreJournal, RestorePlan};
use crate::runs::{Manifest, Part};
use crate::stores::space::Needed;
use crate::systemd::ServiceManager;
use crate::units::render::credential;

/// What a store needs to plan its side of a restore.
pub struct Asked<'a> {
    /// What the admin asked for.
    pub request: &'a Request,
    /// The run.
    pub manifest: &'a Manifest,
    /// The store's part of the run.
    pub part: &'a Part,
    /// systemd.
    pub manager: &'a dyn ServiceManager,
}

/// Why the old data could not be put back.
pub struct Refused {
    /// The reason.
    pub error: Error,
    /// It is certain that nothing was changed: the restored data is still in place and complete.
    pub untouched: bool,
}

/// One store's side of a restore. Methods with a default body are optional: not every store has
/// something to do at that point. Every method can be called again by a restore that continues
/// after a crash.
#[async_trait(?Send)]
pub trait Restoration {
    /// Whether the request includes anything from this store's part.
    fn is_wanted(&self, request: &Request) -> bool;

    /// Checks whether the part can be restored on this host, and adds to the plan how.
    async fn plan(&mut self, asked: &Asked<'_>, plan: &mut RestorePlan) -> Result<()>;

    /// Tries out parts of the restore while GitLab is up, and removes everything it created.
    async fn rehearse(&mut self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Adds the space that the plan needs to `needed`. `only` is the path that the request names,
    /// if it names one.
    fn space(
        &self,
        plan: &RestorePlan,
        engine: &dyn Engine,
        only: Option<&Path>,
        needed: &mut Needed,
    ) -> Result<()>;

    /// Removes leftovers of earlier restores that are in no journal and are in the way of the plan.
    async fn remove_stale(&mut self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Creates the directories beside the live data. The caller writes the journal before and after
    /// this call.
    fn create_directories(&mut self, _plan: &mut RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Extracts the dumps that the plan needs, below the same directory as the other stores.
    fn extract_dumps(&self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Gives the extracted dumps to the account that loads them. Called when all stores have
    /// extracted theirs: extracting sets the modes of the directories that they share.
    fn hand_over_dumps(&self, _plan: &RestorePlan) -> Result<()> {
        Ok(())
    }

    /// Stops the servers that use the old data.
    async fn stop_servers(&mut self, _plan: &RestorePlan, _machine: Machine<'_>) -> Result<()> {
        Ok(())
    }

    /// Adds to the journal what [`put`](Self::put) is going to change. Changes no live data.
    async fn prepare(&mut self, journal: &mut RestoreJournal) -> Result<()>;

    /// Puts the new data in place of the old data, and starts the servers again that
    /// [`stop_servers`](Self::stop_servers) stopped.
    async fn put(&mut self, journal: &RestoreJournal, machine: Machine<'_>) -> Result<()>;

    /// Commits what [`put`](Self::put) has left in an open transaction. Called when
    /// [`put`](Self::put) has succeeded for every store.
    async fn commit(&mut self, _journal: &RestoreJournal) -> Result<()> {
        Ok(())
    }

    /// Rolls back what [`put`](Self::put) has left in an open transaction.
    async fn roll_back(&mut self) {}

    /// Checks that all the old data is still there and can be put back. Changes nothing.
    ///
    /// # Errors
    /// If some of the old data is gone.
    async fn prove(&mut self, journal: &RestoreJournal) -> Result<()>;

    /// Removes old data that cannot be put back any more from the journal: a restore that is
    /// repeated does not need it. Returns the reason for each.
    fn forgo(&self, _journal: &mut RestoreJournal) -> Vec<String> {
        Vec::new()
    }

    /// Puts the old data back where somebody else can prevent it, entirely or not at all. Called
    /// for every store before [`move_back`](Self::move_back) is called for any store. Returns
    /// whether it changed anything.
    async fn switch_back(&mut self, _journal: &RestoreJournal) -> Result<bool, Refused> {
        Ok(false)
    }

    /// Puts the old data back by renames, which nobody else can prevent.
    fn move_back(&self, _journal: &RestoreJournal) -> Result<()> {
        Ok(())
    }

    /// On the way back: starts the servers that [`stop_servers`](Self::stop_servers) stopped, and
    /// waits until they have read their data.
    async fn start_servers(&mut self, _plan: &RestorePlan, _machine: Machine<'_>) -> Result<()> {
        Ok(())
    }

    /// Removes the staged data.
    async fn unstage(&mut self, plan: &RestorePlan) -> Result<()>;

    /// Removes the old data. Returns what could not be removed.
    async fn finish(&mut self, journal: &RestoreJournal) -> Result<Vec<Leftover>>;

    /// Tries again to remove what an earlier [`finish`](Self::finish) left. Returns `None` if the
    /// leftover is not this store's, and `Some(None)` if it is removed now.
    async fn retry(&mut self, _leftover: &Leftover) -> Option<Option<Leftover>> {
        None
    }
}

/// Every store's side of a restore, in the order in which their data is put in place.
pub fn all<'a>(config: &'a Config, root: &'a RootDirectory) -> Vec<Box<dyn Restoration + 'a>> {
    super::all().map(|store| store.restoration(config, root)).into()
}

/// Reads the plan of the running restore. Units that do not run as root get it as a credential.
pub fn plan(root: &RootDirectory) -> Result<RestorePlan> {
    let path =
        secret::given(credential::RESTORE_PLAN).unwrap_or_else(|| root.at(paths::RESTORE_PLAN));
    read_json(&path)?.context("nothing is planned: this helper is started by its unit only")
}

/// Where [`extract_part`] puts the directory of a part of dumps, which has only one.
pub(super) fn dump_directory(root: &RootDirectory, part: &Part) -> Result<PathBuf> {
    let path = part
        .paths
        .first()
        .with_context(|| format!("part '{}' of the run has no path", part.name))?;
    Ok(root.at(paths::RESTORE_DUMPS).join(moves::below(path)))
}

/// Extracts `paths` of a part of dumps; the whole part if `paths` is empty.
pub(super) fn extract_part(
    config: &Config,
    root: &RootDirectory,
    part: &Part,
    paths: &[PathBuf],
) -> Result<()> {
    extract::in_child(config, &part.snapshot, &root.at(paths::RESTORE_DUMPS), paths)
        .with_context(|| format!("cannot extract part '{}'", part.name))
}
