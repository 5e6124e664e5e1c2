//! Whether a run could be restored: everything that can be found out without touching what is live.

mod drill;
mod dumps;
mod git;
mod repository;
mod scratch;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::catalog::{Catalog, CompleteRun};
use crate::config::Config;
use crate::finding::Finding;
use crate::repository::Engine;
use crate::runs::{Manifest, Part};

use super::extract;
pub(super) use repository::unchanged;
use scratch::Scratch;

/// How many Git repositories are a sample.
const SAMPLE: usize = 10;

/// How thorough to be.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Read every byte of the repository.
    pub read_data: bool,
    /// Check every Git repository, and not a sample.
    pub all_repositories: bool,
    /// Restore the dumps into servers that are thrown away.
    pub drill: bool,
}

/// What is verified, where, and who hears of it.
struct Verify<'a> {
    config: &'a Config,
    engine: &'a dyn Engine,
    depth: Depth,
    scratch: Scratch,
    tell: &'a mut dyn FnMut(Finding),
}

/// Verifies `run` in a directory of its own below `scratch`, and tells each finding as it comes.
///
/// # Errors
/// If there is no place to work in.
pub async fn verify(
    config: &Config,
    engine: &dyn Engine,
    run: &CompleteRun,
    (depth, scratch): (Depth, &Path),
    tell: &mut dyn FnMut(Finding),
) -> Result<()> {
    tell(Finding::of("repository", repository::check(engine, depth.read_data)));
    tell(repository::keys(engine));
    // What was read of it once is kept, and would hide what has become of it since.
    let id = &run.manifest.id;
    let stored = Catalog::read_afresh(engine, id).and_then(|catalog| Ok(catalog.pick(Some(id))?.manifest.clone()));
    let manifest = stored.as_ref().unwrap_or(&run.manifest).clone();
    tell(Finding::of("manifest", stored.map(|manifest| format!("written {}", manifest.finished))));
    let mut verify = Verify { config, engine, depth, scratch: Scratch::new(scratch)?, tell };
    for part in &manifest.parts {
        (verify.tell)(Finding::of(format!("part {}", part.name), repository::unchanged(run, part)));
        verify.part(&manifest, part).await?;
    }
    verify.scratch.remove()
}

impl Verify<'_> {
    /// Looks into one part, laid out in a place that is gone afterwards.
    async fn part(&mut self, manifest: &Manifest, part: &Part) -> Result<()> {
        let place = self.scratch.place(&part.name)?;
        match part.name.as_str() {
            "postgresql" | "redis" => {
                if let Err(error) = extract::in_child(self.config, &part.snapshot, &place, &[]) {
                    (self.tell)(Finding::of(format!("part {}", part.name), Err(error)));
                } else if part.name == "redis" {
                    self.redis(part, &place).await?;
                } else {
                    self.postgresql(manifest, part, &place).await?;
                }
            }
            "files" => match git::repositories(self.engine, part) {
                Ok(all) => {
                    for path in git::sample(&all, (!self.depth.all_repositories).then_some(SAMPLE)) {
                        let seen = git::fsck(self.config, part, path, &place);
                        (self.tell)(Finding::of(format!("git {}", path.display()), seen));
                    }
                }
                Err(error) => (self.tell)(Finding::of("git repositories", Err(error))),
            },
            _ => {}
        }
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))
    }

    async fn postgresql(&mut self, manifest: &Manifest, part: &Part, place: &Path) -> Result<()> {
        let dumps = dumps::databases(part, place)?;
        for (name, path) in &dumps {
            (self.tell)(Finding::of(format!("database {name}"), dumps::readable(self.config, path)));
        }
        if self.depth.drill {
            drill::postgresql(self.config, manifest, &dumps, &self.scratch, self.tell).await?;
        }
        Ok(())
    }

    async fn redis(&mut self, part: &Part, place: &Path) -> Result<()> {
        for (name, path) in dumps::instances(part, place)? {
            let keys = dumps::keys(&path);
            let seen = keys.as_ref().map(|keys| format!("redis-check-rdb reads {} keys", keys.read));
            (self.tell)(Finding::of(format!("redis {name}"), seen.map_err(|error| anyhow::anyhow!("{error:#}"))));
            if self.depth.drill {
                let loaded = drill::redis(&name, &path, keys.ok(), &self.scratch).await;
                (self.tell)(Finding::of(format!("drill redis {name}"), loaded));
            }
        }
        Ok(())
    }
}
