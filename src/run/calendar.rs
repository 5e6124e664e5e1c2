//! A calendar that was changed. To systemd, a point of the new one that has gone by since the timer
//! was last due is a run that was missed, and is made up for at once: in working hours, because
//! somebody had the nightly backup an hour later.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::own;
use crate::paths;
use crate::runs::record::{read_json, write_json};

/// Has every timer count from now on whose calendar is another than it was, or of which nothing is
/// known. Its timer must be down.
///
/// # Errors
/// If systemd's note cannot be removed, or ours be written.
pub fn settle(calendars: Vec<(String, String)>) -> Result<()> {
    let place = Path::new(paths::CALENDARS);
    let known: BTreeMap<String, String> = read_json(place)
        .unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            None
        })
        .unwrap_or_default();
    for (timer, calendar) in &calendars {
        if known.get(timer) != Some(calendar) {
            // As 'systemctl clean --what=state' does. The timer's start makes one of that moment.
            let stamp = Path::new(paths::TIMERS).join(format!("stamp-{timer}"));
            own::remove(&stamp).with_context(|| format!("cannot remove {}", stamp.display()))?;
            tracing::info!("{timer} has another calendar, {calendar}: it counts from now on");
        }
    }
    write_json(place, &calendars.into_iter().collect::<BTreeMap<_, _>>())
}
