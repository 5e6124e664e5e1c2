//! Putting something under a name that others may take: who owns the directory above can make
//! something there at any moment, as fast as we can move it away. Then the two are exchanged, which
//! nobody comes between.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::Result;

use crate::host::beneath::{Directory, is_in_the_way, is_missing};
use crate::host::random;
use crate::runs::restore::Move;

use super::{parent, split};

/// Before the inodes of the directory that holds what is about to be exchanged, and of that: the
/// name of a file that says so.
const MARK: &str = "placing-";
/// How often somebody may make and remove what is in the way.
const TRIES: u32 = 10_000;

/// Where what was in the way goes: with all else in it, it is removed when the restore or the
/// put-back is complete.
pub(super) struct Placing<'a> {
    top: &'a Directory,
    /// A process that was killed has left a mark.
    marked: bool,
}

impl<'a> Placing<'a> {
    pub fn new(top: &'a Directory) -> Result<Self> {
        let marked = top
            .entries()?
            .into_iter()
            .any(|(name, _)| name.as_encoded_bytes().starts_with(MARK.as_bytes()));
        Ok(Self { top, marked })
    }

    /// Moves what `holder` has as `inside` to `live`, whatever has come there.
    pub fn place(
        &self,
        holder: &Directory,
        inside: &Path,
        live: &Directory,
        live_name: &OsStr,
    ) -> Result<()> {
        let (above, name) = split(inside);
        let from = &holder.below(above)?;
        let mut tries = 0;
        loop {
            match from.rename(name, live, live_name) {
                Err(error) if is_in_the_way(&error) && tries < TRIES => tries += 1,
                done => return done,
            }
            // A process that is killed after the exchange must not exchange them again.
            let Some(stat) = from.look(Path::new(name))? else { continue };
            let mark = mark(holder, stat.st_ino)?;
            if self.top.look(Path::new(&mark))?.is_none() {
                drop(self.top.create(&mark, 0o600)?);
            }
            match from.exchange(name, live, live_name) {
                // It is gone again.
                Err(error) if is_missing(&error) => {}
                // A file system that cannot: then it has to be won.
                Err(error) if is_in_the_way(&error) => {
                    tracing::debug!("{error:#}");
                    self.put_away(live, live_name)?;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.put_away(from, name)?;
                    return self.top.remove(&mark);
                }
            }
        }
    }

    /// Does what is left of an exchange by a process that was killed: `holder` has what was in the
    /// way in the place of what is live.
    pub fn settle(&self, holder: &Directory, step: &Move) -> Result<()> {
        if !self.marked || holder.look(&step.inside)?.is_none() {
            return Ok(());
        }
        let Some((live, live_name)) = parent(&step.live)? else { return Ok(()) };
        let Some(there) = live.look(Path::new(&live_name))? else { return Ok(()) };
        let mark = mark(holder, there.st_ino)?;
        if self.top.look(Path::new(&mark))?.is_some() {
            let (above, name) = split(&step.inside);
            self.put_away(&holder.below(above)?, name)?;
            self.top.remove(&mark)?;
        }
        Ok(())
    }

    fn put_away(&self, from: &Directory, name: &OsStr) -> Result<()> {
        let new = OsString::from(format!("in-the-way-{}", random::name()?));
        match from.rename(name, self.top, &new) {
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::warn!(
                    "somebody has made {} meanwhile: it is moved aside",
                    from.path().join(name).display()
                );
                Ok(())
            }
        }
    }
}

fn mark(holder: &Directory, inode: u64) -> Result<OsString> {
    Ok(format!("{MARK}{}-{inode}", holder.stat()?.st_ino).into())
}
