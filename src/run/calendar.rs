//! Prevents a run at once when the calendar of a timer is changed. systemd stores when a persistent
//! timer last elapsed. If the new calendar has a time between that and now, systemd takes it for a
//! missed run and starts it, which may be in working hours.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::record::{read_json, write_json};

/// Resets every timer whose calendar has changed or is new: its next run is the next time of the
/// calendar after now. `calendars` are the timers with their calendars. The timers must be stopped.
///
/// # Errors
/// If a timer's stamp file cannot be removed, or the record of the calendars cannot be written.
pub fn reset_changed_timers(calendars: Vec<(String, String)>, root: &RootDirectory) -> Result<()> {
    let place = &root.at(paths::CALENDARS);
    let known: BTreeMap<String, String> = read_json(place)
        .unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            None
        })
        .unwrap_or_default();
    for (timer, calendar) in &calendars {
        if known.get(timer) != Some(calendar) {
            // As 'systemctl clean --what=state' does. The start of the timer creates a new stamp.
            let stamp = root.at(paths::TIMERS).join(format!("stamp-{timer}"));
            own::remove(&stamp).with_context(|| format!("cannot remove {}", stamp.display()))?;
            tracing::info!("{timer} has a new calendar, {calendar}: no missed run is made up for");
        }
    }
    write_json(place, &calendars.into_iter().collect::<BTreeMap<_, _>>())
}
