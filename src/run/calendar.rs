//! A calendar that was changed. To systemd, a point of the new one that has gone by since the timer
//! was last due is a run that was missed, and is made up for at once: in working hours, because
//! somebody had the nightly backup an hour later.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use crate::paths;
use crate::runs::record::{read_json, write_json};

/// Has every timer whose calendar is another than when it was last started count from now on.
///
/// # Errors
/// If systemd's notes cannot be changed, or ours be written.
pub fn settle(calendars: Vec<(String, String)>) -> Result<()> {
    let place = Path::new(paths::CALENDARS);
    // None at first: then systemd has nothing to make up for either.
    let known: Option<BTreeMap<String, String>> = read_json(place).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    for (timer, calendar) in &calendars {
        if known.as_ref().is_some_and(|known| known.get(timer) != Some(calendar)) {
            from_now_on(&Path::new(paths::TIMERS).join(format!("stamp-{timer}")))?;
            tracing::info!("{timer} has another calendar, {calendar}: it counts from now on");
        }
    }
    write_json(place, &calendars.into_iter().collect::<BTreeMap<_, _>>())
}

fn from_now_on(stamp: &Path) -> Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    match utimensat(
        CWD,
        stamp,
        &Timestamps { last_access: now, last_modification: now },
        AtFlags::SYMLINK_NOFOLLOW,
    ) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("cannot change {}", stamp.display())),
    }
}
