//! Restores the files of a run: stages them beside the live ones and exchanges the two by renames.

mod compared;
mod kept;
mod layout;
mod staged;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;

use crate::config::Config;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::repository::Engine;
use crate::runs::Part;
use crate::runs::notes::note;
use crate::runs::record::read_json;
use crate::runs::restore::{
    Beside, Leftover, Places, Request, RestoreJournal, RestorePlan, StagingLayout,
};
use crate::stores::restoration::{Asked, Restoration};
use crate::stores::space::Needed;
use crate::stores::{leftover, moves};
use crate::systemd::notify;
use crate::values::{RawPath, RunId};

pub use compared::stage_configuration;
pub use staged::stage_files;

/// The files' side of a restore.
pub(super) struct FilesRestoration<'a> {
    pub config: &'a Config,
    pub root: &'a RootDirectory,
}

#[async_trait(?Send)]
impl Restoration for FilesRestoration<'_> {
    fn is_wanted(&self, request: &Request) -> bool {
        request.wants(super::FILES) || request.wants("config")
    }

    async fn plan(&mut self, asked: &Asked<'_>, plan: &mut RestorePlan) -> Result<()> {
        let (replaced, compared) = choose_paths(self.config, asked.request, asked.part);
        let run = &asked.manifest.id;
        plan.files = Some(asked.part.snapshot.clone());
        plan.beside =
            (!compared.is_empty()).then(|| stage_for_comparison(self.root, run, compared));
        plan.layouts = layout::plan_layouts(&replaced, run)?;
        Ok(())
    }

    fn space(
        &self,
        plan: &RestorePlan,
        engine: &dyn Engine,
        only: Option<&Path>,
        needed: &mut Needed,
    ) -> Result<()> {
        let Some(snapshot) = &plan.files else { return Ok(()) };
        let layouts = plan.layouts.iter().map(|layout| {
            let roots: Vec<&PathBuf> = layout.roots.iter().map(|root| &root.path).collect();
            (&layout.places.staged.path, roots)
        });
        let beside =
            plan.beside.iter().map(|beside| (&beside.directory, beside.roots.iter().collect()));
        let all: Vec<(&PathBuf, Vec<&PathBuf>)> = layouts.chain(beside).collect();
        let mut bytes = vec![0; all.len()];
        let mut seen = false;
        engine
            .list(snapshot, &mut |path, size| {
                seen |= only.is_some_and(|only| path.starts_with(only));
                let Some(size) = size else { return };
                let within = |(_, roots): &(&PathBuf, Vec<&PathBuf>)| {
                    roots.iter().any(|root| path.starts_with(root))
                };
                if let Some(index) = all.iter().position(within) {
                    bytes[index] += size;
                }
            })
            .context("the run's files cannot be listed")?;
        if let Some(only) = only.filter(|_| !seen) {
            bail!("{} is not in the run", only.display());
        }
        all.iter().zip(bytes).for_each(|((directory, _), bytes)| needed.add(directory, bytes));
        Ok(())
    }

    fn create_directories(&mut self, plan: &mut RestorePlan) -> Result<()> {
        plan.layouts.iter_mut().try_for_each(|layout| layout.places.make())
    }

    async fn prepare(&mut self, journal: &mut RestoreJournal) -> Result<()> {
        if journal.plan.files.is_some() {
            staged::record_kept(&journal.plan.layouts, self.root)?;
        }
        journal.moves = journal.plan.layouts.iter().map(moves::plan).collect::<Result<_>>()?;
        Ok(())
    }

    async fn put(&mut self, journal: &RestoreJournal, _: Machine<'_>) -> Result<()> {
        notify::status("putting the files in place");
        moves::forward(&journal.moves)?;
        journal.plan.layouts.iter().try_for_each(moves::adopt_mounts)
    }

    async fn prove(&mut self, journal: &RestoreJournal) -> Result<()> {
        moves::prove(&journal.moves)
    }

    fn forgo(&self, journal: &mut RestoreJournal) -> Vec<String> {
        moves::forgo(&mut journal.moves)
    }

    fn move_back(&self, journal: &RestoreJournal) -> Result<()> {
        moves::backward(&journal.moves)
    }

    async fn unstage(&mut self, plan: &RestorePlan) -> Result<()> {
        // Try all of them, even if one cannot be removed.
        let all: Vec<Result<()>> =
            plan.layouts.iter().map(|layout| moves::unstage(&layout.places)).collect();
        all.into_iter().collect()
    }

    async fn finish(&mut self, journal: &RestoreJournal) -> Result<Vec<Leftover>> {
        let only_here: Vec<RawPath> =
            read_json(&self.root.at(paths::RESTORE_KEPT))?.unwrap_or_default();
        let mut left = Vec::new();
        for layout in &journal.plan.layouts {
            let here: Vec<&PathBuf> = only_here
                .iter()
                .map(|RawPath(path)| path)
                .filter(|path| layout.roots.iter().any(|root| path.starts_with(&root.path)))
                .collect();
            let Places { staged, aside } = &layout.places;
            let kept = keep_only_here(self.root, layout, &here)?;
            left.extend(kept.or_else(|| leftover::remove(aside, None)));
            left.extend(leftover::remove(staged, None));
        }
        Ok(left)
    }
}

/// Keeps the paths `here`, which are on this host and not in the run. If that fails, returns the
/// directory with the old files, which must stay because of them.
fn keep_only_here(
    root: &RootDirectory,
    layout: &StagingLayout,
    here: &[&PathBuf],
) -> Result<Option<Leftover>> {
    match kept::keep(layout, here) {
        Ok(0) => Ok(None),
        Ok(count) => {
            let words = format!(
                "{count} paths that were here and are not in the run are kept in {}",
                layout.kept.display()
            );
            note(root, words)?;
            Ok(None)
        }
        Err(error) => {
            let why = format!(
                "it has paths that are not in the run, which cannot be kept in {}: {error:#}",
                layout.kept.display()
            );
            Ok(Some(leftover::keep(&layout.places.aside, why)))
        }
    }
}

/// Chooses the paths to replace, and the configuration that is only extracted for comparison.
fn choose_paths(config: &Config, request: &Request, files: &Part) -> (Vec<PathBuf>, Vec<PathBuf>) {
    if let Some(path) = &request.path {
        return (vec![path.clone()], Vec::new());
    }
    let (configuration, data): (Vec<PathBuf>, Vec<PathBuf>) =
        files.paths.iter().cloned().partition(|path| {
            config.files.configuration.iter().any(|inner| path.starts_with(inner))
        });
    let mut replaced = if request.wants(super::FILES) { data } else { Vec::new() };
    if request.wants("config") {
        replaced.extend(configuration);
        return (replaced, Vec::new());
    }
    (replaced, configuration)
}

/// The plan to extract the configuration `roots` below `/var/lib/gitlab-backup/restored/RUN`.
fn stage_for_comparison(root: &RootDirectory, run: &RunId, roots: Vec<PathBuf>) -> Beside {
    Beside { directory: root.at(paths::RESTORED_CONFIGURATION).join(run.as_str()), roots }
}
