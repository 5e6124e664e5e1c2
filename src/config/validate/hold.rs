//! `[gitlab] quiesce`, `front`, `max-hold` and `hold-fallback`.

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::{Fallback, Hold, Phases, Proxy, Quiesce, raw};
use crate::values::{Timespan, UnitName};

/// `None` is `auto`.
const QUIESCE: [(&str, Option<Quiesce>); 4] = [
    ("stop", Some(Quiesce::Stop)),
    ("freeze", Some(Quiesce::Freeze)),
    ("hold", Some(Quiesce::Hold)),
    ("auto", None),
];
const FALLBACK: [(&str, Fallback); 2] = [("stop", Fallback::Stop), ("fail", Fallback::Fail)];

/// The facts besides the keys themselves.
pub(super) struct Context<'a> {
    pub writers: &'a [UnitName],
    pub proxies: &'a [Proxy],
    pub phases: &'a Phases,
    /// The writers that are stopped without their dependents.
    pub alone: &'a [UnitName],
    /// A configured command runs in the window.
    pub is_command: bool,
}

/// How the writers are kept from writing. Refuses to freeze or hold what cannot be.
pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
    context: Context<'_>,
) -> (Quiesce, Hold) {
    let word =
        checker.value(section, "quiesce", raw.quiesce.as_ref(), |word| rules::word(word, &QUIESCE));
    let word = word.flatten();
    let obstacle = obstacle(&context, word);
    let refused = match (word, &obstacle) {
        (Some(Quiesce::Freeze), Some(_)) => context.proxy().map(|proxy| {
            format!(
                "'freeze' does not work for '{}', whose processes do not belong to a systemd unit",
                proxy.name
            )
        }),
        (Some(Quiesce::Hold), Some(why)) => Some(format!("'hold' is not possible: {why}")),
        _ => None,
    };
    if let Some(message) = refused {
        checker
            .refuse(&section.field("quiesce", raw.quiesce.as_ref()), Refusal::new(message, "stop"));
    }
    let quiesce = word.unwrap_or(match obstacle {
        Some(_) => Quiesce::Stop,
        None => Quiesce::Hold,
    });
    let longest = checker
        .value(section, "max-hold", raw.max_hold.as_ref(), |text| rules::timespan_above_zero(text));
    let fallback = checker.value(section, "hold-fallback", raw.hold_fallback.as_ref(), |word| {
        rules::word(word, &FALLBACK)
    });
    let hold = Hold {
        front: front(checker, section, raw, &context),
        longest: longest.unwrap_or(Timespan::from_secs(8)),
        fallback: fallback.unwrap_or(Fallback::Stop),
        is_auto: word.is_none(),
        obstacle: obstacle.filter(|_| word.is_none()),
    };
    (quiesce, hold)
}

impl Context<'_> {
    fn proxy(&self) -> Option<&Proxy> {
        let writes = |proxy: &&Proxy| self.writers.contains(&proxy.unit());
        self.proxies.iter().filter(|proxy| !proxy.name.is_empty()).find(writes)
    }
}

/// Why GitLab cannot be frozen or held.
fn obstacle(context: &Context<'_>, word: Option<Quiesce>) -> Option<String> {
    if let Some(proxy) = context.proxy() {
        return Some(format!("systemd does not manage the processes of '{}'", proxy.name));
    }
    if word == Some(Quiesce::Freeze) {
        return None;
    }
    if let Some(unit) = context.alone.first() {
        return Some(format!("'{unit}' must be stopped without its dependents"));
    }
    context
        .is_command
        .then(|| "files.command, or a [[step]] of the window, may take any time in it".to_owned())
}

/// The configured front, or the names that web servers and SSH servers have.
fn front(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
    context: &Context<'_>,
) -> Vec<UnitName> {
    let is_stopped = |unit: &UnitName| context.phases.background.contains(unit);
    let Some(named) = checker.list(section, "front", &raw.front, |name| rules::unit(name)) else {
        return Hold::FRONT.into_iter().filter_map(|name| UnitName::new(name).ok()).collect();
    };
    for (place, unit) in named.iter().filter(|(_, unit)| is_stopped(unit) || !unit.has_processes())
    {
        let message = format!("users do not reach GitLab through '{unit}'");
        checker.refuse(place, Refusal::new(message, "services like nginx.service, ssh.service"));
    }
    named.into_iter().map(|(_, unit)| unit).collect()
}
