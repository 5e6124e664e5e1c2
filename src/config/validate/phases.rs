//! The phases of the stop: `[gitlab] door`, `gitaly` and `background`.

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::phases::Phases;
use crate::config::{Proxy, raw};
use crate::schema::List;
use crate::values::UnitName;

/// The phases as configured, or by the names of the writers. Adds the door to the writers.
pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
    proxies: &[Proxy],
    writers: &mut Vec<UnitName>,
) -> Phases {
    let by_name = Phases::by_name(writers);
    let gitaly = among(checker, section, "gitaly", &raw.gitaly, writers);
    let background = among(checker, section, "background", &raw.background, writers);
    let door = checker.list(section, "door", &raw.door, |name| rules::unit(name));
    // A proxy is always a writer, also one that only shows a maintenance page.
    let is_proxy = |unit: &UnitName| proxies.iter().any(|proxy| proxy.unit() == *unit);
    let writes = |unit: &UnitName| writers.contains(unit) && !is_proxy(unit);
    for (place, unit) in door.iter().flatten().filter(|(_, unit)| writes(unit)) {
        let message =
            format!("'{unit}' is one of the writers: it writes, and has a phase of its own");
        checker.refuse(place, Refusal::new(message, "units that only lead to GitLab, like nginx"));
    }
    let door: Vec<UnitName> = door.into_iter().flatten().map(|(_, unit)| unit).collect();
    writers.extend(door.iter().filter(|unit| !writers.contains(unit)).cloned().collect::<Vec<_>>());
    let gitaly = gitaly.unwrap_or(by_name.gitaly);
    let background = background.unwrap_or_else(|| {
        by_name.background.into_iter().filter(|unit| !gitaly.contains(unit)).collect()
    });
    Phases { door, gitaly, background, gitaly_is_given: raw.gitaly.is_some() }
}

/// The units of a list, which must be writers.
fn among(
    checker: &mut Checker,
    section: &Section,
    key: &str,
    list: &List,
    writers: &[UnitName],
) -> Option<Vec<UnitName>> {
    let named = checker.list(section, key, list, |name| rules::unit(name))?;
    for (place, unit) in named.iter().filter(|(_, unit)| !writers.contains(unit)) {
        let message = format!("'{unit}' is not one of the writers, so it is not stopped");
        checker.refuse(place, Refusal::new(message, UnitName::texts(writers).join(", ")));
    }
    Some(named.into_iter().map(|(_, unit)| unit).collect())
}
