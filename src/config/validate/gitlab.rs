//! `[gitlab]`

use super::rules::{self, Refusal};
use super::{Checker, Section, Units, hold, phases, proxy};
use crate::config::found::{Defaults, HostFacts};
use crate::config::host::Host;
use crate::config::layout::{self, LAYOUTS, Layout, SUPERVISOR};
use crate::config::{Gitlab, Proxy, ReadinessUrl, raw};
use crate::values::{Timespan, UnitName};

/// The facts besides the section itself that its validation needs.
pub(super) struct Context<'a> {
    pub(super) host: &'a Host,
    pub(super) units: &'a Units,
    /// The units that `[[redis]]` names.
    pub(super) redis_units: Vec<String>,
    /// A configured command runs in the window.
    pub(super) is_command: bool,
}

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: raw::Gitlab,
    context: Context,
) -> (Gitlab, Defaults, HostFacts) {
    let layout = choose_layout(checker, section, &raw, context.units);
    let found =
        layout.map(|layout| layout::found(layout, context.host, context.units)).unwrap_or_default();
    let mut defaults = found.defaults.clone();
    if let Some(why) = defaults.refusal.take() {
        let refusal = Refusal::new(why, "layout = \"custom\", with every key set");
        checker.refuse(&section.field("layout", raw.layout.as_ref()), refusal);
    }
    let named = named_writers(checker, section, &raw);
    let mut writers = named.unwrap_or_else(|| std::mem::take(&mut defaults.writers));
    let proxies = proxy::check(checker, raw.proxy.as_ref(), std::mem::take(&mut defaults.proxies));
    add_proxies(&mut writers, &proxies, &context, &defaults);
    let stays_up = stays_up(checker, section, &raw, &writers, context.units);
    // Stopping a target also stops the units that are part of it, perhaps one that stays up. A
    // target starts nothing by itself, so it need not be stopped.
    writers.retain(|unit| {
        !stays_up.contains(unit) && (stays_up.is_empty() || !unit.as_str().ends_with(".target"))
    });
    let phases = phases::check(checker, section, &raw, &proxies, &mut writers);
    let stopped_alone: Vec<UnitName> =
        defaults.stopped_alone.iter().filter(|unit| writers.contains(unit)).cloned().collect();
    let (quiesce, hold) = hold::check(
        checker,
        section,
        &raw,
        hold::Context {
            writers: &writers,
            proxies: &proxies,
            phases: &phases,
            alone: &stopped_alone,
            is_command: context.is_command,
        },
    );
    let given = raw.writers.as_ref().is_some_and(|list| !list.get_ref().is_empty());
    if let (Some(layout), false, true) = (layout, given, writers.is_empty()) {
        refuse_no_writers(checker, section, &raw, layout);
    }
    let readiness =
        checker.value(section, "readiness-url", raw.readiness_url.as_ref(), |url| readiness(url));
    let downtime = checker.value(section, "max-downtime", raw.max_downtime.as_ref(), |text| {
        rules::timespan_above_zero(text)
    });
    let grace =
        checker.value(section, "stop-grace", raw.stop_grace.as_ref(), |text| rules::timespan(text));
    let settle =
        checker.value(section, "settle", raw.settle.as_ref(), |text| rules::timespan(text));
    let drain = checker.value(section, "drain", raw.drain.as_ref(), |text| rules::timespan(text));
    let gitlab = Gitlab {
        layout: layout.map_or("", |layout| layout.name()).to_owned(),
        stopped_alone,
        writers,
        stays_up,
        proxies,
        quiesce,
        hold,
        readiness,
        max_downtime: downtime.unwrap_or(Timespan::from_secs(30 * 60)),
        stop_grace: grace.unwrap_or(Timespan::from_secs(10)),
        settle: settle.unwrap_or(Timespan::from_secs(5 * 60)),
        phases,
        drain: drain.unwrap_or(Timespan::from_secs(10)),
    };
    (gitlab, defaults, found)
}

/// Adds the units of the proxies to the writers, except those of Redis servers, which only a
/// restore restarts.
fn add_proxies(
    writers: &mut Vec<UnitName>,
    proxies: &[Proxy],
    context: &Context,
    defaults: &Defaults,
) {
    for unit in proxies.iter().map(Proxy::unit) {
        let runs_redis = context.redis_units.iter().any(|redis| redis == unit.as_str())
            || defaults.redis_unit.as_ref() == Some(&unit);
        if !runs_redis && !writers.contains(&unit) {
            writers.push(unit);
        }
    }
}

/// The configured writers. Refuses Omnibus' supervisor, because it also runs the databases.
fn named_writers(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
) -> Option<Vec<UnitName>> {
    let writers = checker.list(section, "writers", &raw.writers, |name| rules::unit(name));
    for (place, _) in writers.iter().flatten().filter(|(_, name)| name.as_str() == SUPERVISOR) {
        let message = format!(
            "'{SUPERVISOR}' also runs PostgreSQL and Redis, which must stay up in the window"
        );
        let allowed = "no writers: each service below it has a proxy, which is stopped instead";
        checker.refuse(place, Refusal::new(message, allowed));
    }
    writers.map(|writers| writers.into_iter().map(|(_, name)| name).collect())
}

/// The units that stay up. Units that are no writers are allowed, but unknown units are refused:
/// the name is a typo.
fn stays_up(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
    writers: &[UnitName],
    units: &Units,
) -> Vec<UnitName> {
    let stays_up = checker
        .list(section, "stays-up", &raw.stays_up, |name| rules::unit(name))
        .unwrap_or_default();
    for (place, unit) in &stays_up {
        let unknown = !units.is_empty() && units.find(unit.as_str()).is_none();
        if !writers.contains(unit) && !writers.is_empty() && unknown {
            let all: Vec<_> = writers.iter().map(ToString::to_string).collect();
            checker.refuse(
                place,
                Refusal::new(format!("there is no '{unit}' on this host"), all.join(", ")),
            );
        }
    }
    stays_up.into_iter().map(|(_, unit)| unit).collect()
}

fn refuse_no_writers(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
    layout: &dyn Layout,
) {
    let message = match &raw.writers {
        Some(_) => "is empty: there would be nothing to stop".to_owned(),
        None => format!("is missing, and layout '{}' finds none on this host", layout.name()),
    };
    let allowed = "the units that write GitLab's data, like [\"gitlab-puma.service\", \
                   \"gitlab-sidekiq.service\"], or [[gitlab.proxy]]";
    checker.refuse(&section.field("writers", raw.writers.as_ref()), Refusal::new(message, allowed));
}

/// The configured layout, or with `auto` the first that recognises the host.
fn choose_layout(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Gitlab,
    units: &Units,
) -> Option<&'static dyn Layout> {
    let auto = std::iter::once(("auto", None));
    let words: Vec<_> =
        auto.chain(LAYOUTS.iter().map(|layout| (layout.name(), Some(*layout)))).collect();
    let named = match raw.layout.as_ref() {
        Some(field) => {
            checker.value(section, "layout", Some(field), |word| rules::word(word, &words))?
        }
        None => None,
    };
    let chosen = named.or_else(|| LAYOUTS.into_iter().find(|layout| layout.recognises(units)));
    if chosen.is_none() {
        let refusal = Refusal::new(
            "no known layout of GitLab is on this host (looked for unit files such as \
             gitlab-puma.service)",
            "layout = \"custom\" with writers, the units that write GitLab's data",
        );
        checker.refuse(&section.field("layout", raw.layout.as_ref()), refusal);
    }
    chosen
}

/// `http(s)://…`, `unix:/socket` or `unix:/socket:/url/path`.
fn readiness(text: &str) -> Result<ReadinessUrl, Refusal> {
    const ALLOWED: &str = "http://HOST…, https://HOST… or unix:/path/to/socket[:/url/path]";
    let refuse = |why: &str| Err(Refusal::new(format!("'{text}' {why}"), ALLOWED));
    fn blank(c: char) -> bool {
        c.is_control() || c == ' '
    }
    let refused = if text.starts_with("unix:") { char::is_control } else { blank };
    if text.chars().any(refused) {
        return refuse("has a space or a control character in it");
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/-/readiness"));
        if !path.starts_with('/') || path.chars().any(blank) {
            return refuse("has no absolute URL path behind the socket, or one with a space in it");
        }
        let socket = rules::path(
            socket.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(socket),
        )?;
        return Ok(ReadinessUrl::Unix { socket, path: path.to_owned() });
    }
    match reqwest::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
            refuse("is not a URL of HTTP")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            refuse("has a user in it: readiness needs none")
        }
        Ok(_) => Ok(ReadinessUrl::Http(text.to_owned())),
        Err(error) => refuse(&format!("is not a URL ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_asked_over_http_or_a_socket() {
        let unix = |socket: &str, path: &str| ReadinessUrl::Unix {
            socket: socket.into(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            (
                "http://127.0.0.1:8080/-/readiness",
                ReadinessUrl::Http("http://127.0.0.1:8080/-/readiness".into()),
            ),
            (
                "https://[::1]/-/readiness?all=1",
                ReadinessUrl::Http("https://[::1]/-/readiness?all=1".into()),
            ),
            ("unix:/run/g.sock", unix("/run/g.sock", "/-/readiness")),
            ("unix:///run/g.sock", unix("/run/g.sock", "/-/readiness")),
            ("unix:/srv/git lab/g.sock", unix("/srv/git lab/g.sock", "/-/readiness")),
            ("unix:/run/g.sock:/gitlab/-/readiness", unix("/run/g.sock", "/gitlab/-/readiness")),
        ] {
            assert_eq!(readiness(text).unwrap(), expected);
        }
        for text in [
            "",
            "127.0.0.1",
            "ftp://x/",
            "http://",
            "unix:g.sock",
            "unix:/g.sock:x",
            "unix:/g.sock:/a b",
            "http://u:p@h/",
            "http://h/ x",
            "http://h/\n",
            "unix:/a/../b",
        ] {
            assert!(readiness(text).is_err(), "{text:?}");
        }
    }
}
