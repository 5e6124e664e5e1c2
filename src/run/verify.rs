//! Whether a run could be restored: everything that can be found out without touching what is live.

mod drill;
mod dumps;
mod git;
mod repository;
mod scratch;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::unistd::User;

use crate::accounts;
use crate::catalog::{Catalog, CompleteRun, Whose};
use crate::config::Config;
use crate::finding::Finding;
use crate::host::beneath::Directory;
use crate::host::{text, user};
use crate::repository::Engine;
use crate::run::extract;
use crate::runs::{Manifest, Part};
pub(crate) use repository::unchanged;
use scratch::Scratch;

/// How many Git repositories are a sample.
const SAMPLE: usize = 10;
/// The parts that are laid out.
const LAID_OUT: [&str; 3] = ["postgresql", "redis", "files"];
/// How long a program may take to read nothing.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bytes that it reads in a second at least, on a slow disk.
const PACE: u64 = 1 << 20;

/// How long a program may take to read so many bytes: what others made must not keep a verify for
/// ever.
fn patience(bytes: u64) -> Duration {
    PATIENCE + Duration::from_secs(bytes / PACE)
}

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
    /// Whom the programs become that read what others made.
    user: Option<User>,
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
    let stored = Catalog::read_afresh(engine, Whose::Run(id), id)
        .and_then(|catalog| Ok(catalog.pick(Some(id))?.manifest.clone()));
    let manifest = stored.as_ref().unwrap_or(&run.manifest).clone();
    tell(Finding::of("manifest", stored.map(|manifest| format!("written {}", manifest.finished))));
    let user = match user::sandbox() {
        Ok(user) => user,
        Err(error) => {
            tell(Finding::of("sandbox", Err(error)));
            return Ok(());
        }
    };
    if user.is_none() {
        let words = format!(
            "only root can look at what others made as {}: it is looked at with your own rights",
            accounts::SANDBOX
        );
        tell(Finding::warning("sandbox", words));
    }
    let mut verify = Verify { config, engine, depth, scratch: Scratch::new(scratch)?, user, tell };
    for part in &manifest.parts {
        (verify.tell)(Finding::of(format!("part {}", part.name), repository::unchanged(run, part)));
        verify.part(&manifest, part).await?;
    }
    verify.scratch.remove()
}

/// Whether Git is here, and the account that it runs as: a host on which nothing is installed yet
/// may have neither.
///
/// # Errors
/// With what is missing.
pub fn git_is_there() -> Result<()> {
    user::sandbox()?;
    git::program().map(drop)
}

/// Has Git check one repository of a part, by the account that looks at what others made.
///
/// # Errors
/// If it is not whole, or cannot be looked at.
pub fn fsck(config: &Config, part: &Part, path: &Path, scratch: &Path) -> Result<String> {
    let user = user::sandbox()?;
    let scratch = Scratch::new(scratch)?;
    let place = scratch.place(&part.name)?;
    let mut desk = git::Desk::new(config, part, &place, &scratch, user.as_ref())?;
    let seen = desk.fsck(path);
    desk.clear()?;
    scratch.remove()?;
    seen
}

impl Verify<'_> {
    /// Looks into one part, laid out in a place that is gone afterwards. What is in it is others':
    /// it ends nothing but the look at itself.
    async fn part(&mut self, manifest: &Manifest, part: &Part) -> Result<()> {
        if !LAID_OUT.contains(&part.name.as_str()) {
            return Ok(());
        }
        let place = self.scratch.place(&part.name)?;
        let looked = match part.name.as_str() {
            "files" => {
                repository::links(self.engine, part).into_iter().for_each(&mut *self.tell);
                self.repositories(part, &place)
            }
            name => match self.lay_out(part, &place) {
                Ok(()) if name == "redis" => self.redis(part, &place).await,
                Ok(()) => self.postgresql(manifest, part, &place).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = looked {
            (self.tell)(Finding::of(format!("part {}", part.name), Err(error)));
        }
        self.scratch.clear(&part.name)
    }

    /// The dumps, readable for the programs that look at them.
    fn lay_out(&self, part: &Part, place: &Path) -> Result<()> {
        extract::in_child(self.config, &part.snapshot, place, &[])?;
        scratch::lend(&Directory::open(place)?, self.user.as_ref()).map(drop)
    }

    fn repositories(&mut self, part: &Part, place: &Path) -> Result<()> {
        let all = match git::repositories(self.engine, part) {
            Ok(all) => all,
            Err(error) => {
                (self.tell)(Finding::of("git repositories", Err(error)));
                return Ok(());
            }
        };
        if all.is_empty() {
            return Ok(());
        }
        let mut desk = git::Desk::new(self.config, part, place, &self.scratch, self.user.as_ref())?;
        for path in git::sample(&all, (!self.depth.all_repositories).then_some(SAMPLE)) {
            (self.tell)(Finding::of(format!("git {}", text::path(path)), desk.fsck(path)));
        }
        desk.clear()
    }

    async fn postgresql(&mut self, manifest: &Manifest, part: &Part, place: &Path) -> Result<()> {
        let dumps = dumps::databases(part, place)?;
        for (name, path) in &dumps {
            (self.tell)(Finding::of(
                format!("database {name}"),
                dumps::readable(self.config, path, self.user.as_ref()),
            ));
        }
        if self.depth.drill {
            drill::postgresql(self.config, manifest, &dumps, &self.scratch, self.tell).await?;
        }
        Ok(())
    }

    async fn redis(&mut self, part: &Part, place: &Path) -> Result<()> {
        for (name, path) in dumps::instances(part, place)? {
            let keys = dumps::keys(&path, self.user.as_ref());
            (self.tell)(match &keys {
                Ok(Some(keys)) => Finding::of(
                    format!("redis {name}"),
                    Ok(format!("redis-check-rdb reads {} keys", keys.read)),
                ),
                Ok(None) => Finding::warning(
                    format!("redis {name}"),
                    "its format is newer than the program here that could check it",
                ),
                Err(error) => {
                    Finding::of(format!("redis {name}"), Err(anyhow::anyhow!("{error:#}")))
                }
            });
            if self.depth.drill {
                let loaded = drill::redis(&name, &path, keys.ok().flatten(), &self.scratch).await;
                (self.tell)(Finding::of(format!("drill redis {name}"), loaded));
            }
        }
        Ok(())
    }
}
