//! Puts a file or directory in place where another user can interfere: the owner of the directory
//! above can create something under the name again as fast as it is moved aside. Then the two are
//! exchanged atomically (renameat2(2) with `RENAME_EXCHANGE`).
//!
//! If a process is killed right after the exchange, the other user's file is in the staged or aside
//! directory, where the data was. A mark, a file written before the exchange, records that.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::Result;

use crate::host::beneath::{Directory, is_in_the_way, is_missing};
use crate::host::random;
use crate::runs::restore::Move;

use super::{parent, split};

/// The prefix of a mark's name. The inode numbers of the directory that holds the data and of the
/// data itself follow.
const MARK: &str = "placing-";
/// How often another user may create and remove something in the way.
const TRIES: u32 = 10_000;

/// Puts data in place, and moves everything that is in the way to a directory that is removed at
/// the end of the restore.
pub(super) struct Placing<'a> {
    /// The directory for what was in the way and for the marks.
    top: &'a Directory,
    /// A killed process has left a mark.
    has_marks: bool,
}

impl<'a> Placing<'a> {
    pub fn new(top: &'a Directory) -> Result<Self> {
        let has_marks = top
            .entries()?
            .into_iter()
            .any(|(name, _)| name.as_encoded_bytes().starts_with(MARK.as_bytes()));
        Ok(Self { top, has_marks })
    }

    /// Moves `inside` of `holder` to `live`, even if something is in the way there.
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
            let Some(stat) = from.look(Path::new(name))? else { continue };
            let mark = mark_name(holder, stat.st_ino)?;
            if self.top.look(Path::new(&mark))?.is_none() {
                drop(self.top.create(&mark, 0o600)?);
            }
            match from.exchange(name, live, live_name) {
                // There is nothing in the way any more.
                Err(error) if is_missing(&error) => {}
                // The file system has no exchange: rename again and again until it succeeds.
                Err(error) if is_in_the_way(&error) => {
                    tracing::debug!("{error:#}");
                    self.move_out_of_the_way(live, live_name)?;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.move_out_of_the_way(from, name)?;
                    return self.top.remove(&mark);
                }
            }
        }
    }

    /// Completes the exchange of a killed process, if its mark is still there: moves the other
    /// user's file out of `holder`.
    pub fn settle(&self, holder: &Directory, step: &Move) -> Result<()> {
        if !self.has_marks || holder.look(&step.inside)?.is_none() {
            return Ok(());
        }
        let Some((live, live_name)) = parent(&step.live)? else { return Ok(()) };
        let Some(stat) = live.look(Path::new(&live_name))? else { return Ok(()) };
        let mark = mark_name(holder, stat.st_ino)?;
        if self.top.look(Path::new(&mark))?.is_some() {
            let (above, name) = split(&step.inside);
            self.move_out_of_the_way(&holder.below(above)?, name)?;
            self.top.remove(&mark)?;
        }
        Ok(())
    }

    fn move_out_of_the_way(&self, from: &Directory, name: &OsStr) -> Result<()> {
        let new = OsString::from(format!("in-the-way-{}", random::name()?));
        match from.rename(name, self.top, &new) {
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::warn!(
                    "{} was created by another process during the restore: moved aside",
                    from.path().join(name).display()
                );
                Ok(())
            }
        }
    }
}

fn mark_name(holder: &Directory, inode: u64) -> Result<OsString> {
    Ok(format!("{MARK}{}-{inode}", holder.stat()?.st_ino).into())
}
