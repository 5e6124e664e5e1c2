//! The proxy units of services that systemd does not manage, and the units that synchronise them.
//! The services' commands run without a sandbox, which could break them, and without a umask, which
//! the services would inherit.

use askama::Template;

use crate::config::{Gitlab, Phase, Proxy, Stage};
use crate::units::Unit;
use crate::units::render::Renderer;
use crate::units::render::step::StepService;
use crate::units::row::{Row, Steps, When, always, proxies};
use crate::units::text::Text;
use crate::values::{Timespan, UnitName};

/// Seconds that the unit's time limit exceeds the helper's, so that the helper can report its own
/// timeout.
const MARGIN: u64 = 30;
/// The time limit for the status commands.
const STATUS_TIMEOUT: Timespan = Timespan::from_secs(120);

pub const PROXY: Row = Row {
    name: "gitlab-backup-proxy-{}.service",
    when: When::Start,
    needed: always,
    text: |renderer, unit| {
        let named = |proxy: &&Proxy| matches!(unit, Unit::Proxy(name) if *name == proxy.name);
        match renderer.config.gitlab.proxies.iter().find(named) {
            Some(proxy) => service(renderer, proxy).render(),
            None => Err(askama::Error::custom(format!("{unit} is not configured"))),
        }
    },
};

#[derive(Template)]
#[template(path = "proxy.service")]
struct ProxyService {
    /// Comments for the reader of the unit file.
    notes: Vec<Text>,
    description: Text,
    after: Option<Text>,
    start: Text,
    stop: Text,
    timeout: Text,
}

fn service(renderer: &Renderer<'_>, proxy: &Proxy) -> ProxyService {
    let name = &proxy.name;
    let note = |word: &str, argv: &[String]| Text::prose(&format!("{word}: {}", argv.join(" ")));
    let description = format!("GitLab's {name} (not managed by systemd)");
    ProxyService {
        notes: vec![
            note("start", &proxy.start),
            note("stop", &proxy.stop),
            note("status", &proxy.status),
        ],
        description: Text::prose(&description),
        after: Text::some_names(after(&renderer.config.gitlab, proxy)),
        start: renderer.helper(&["proxy", "start", name]),
        stop: renderer.helper(&["proxy", "stop", name]),
        timeout: Text::plain(Timespan::from_secs(proxy.timeout + MARGIN)),
    }
}

/// The proxies that are stopped after this one. A proxied Gitaly is not: it is stopped in an
/// earlier phase, and would wait for a unit that waits for it.
fn after(gitlab: &Gitlab, proxy: &Proxy) -> impl Iterator<Item = Unit> {
    let phase = |unit: UnitName| gitlab.phase(&unit);
    let own = phase(proxy.unit());
    let named = |name: &String| gitlab.proxies.iter().find(|other| other.name == *name);
    proxy
        .after
        .iter()
        .filter_map(named)
        .filter(move |other| {
            own == Some(Phase::Gitaly) || phase(other.unit()) != Some(Phase::Gitaly)
        })
        .map(|other| Unit::Proxy(other.name.clone()))
}

pub const PROXIES: Row = Row {
    name: "gitlab-backup-proxies.service",
    when: When::Member(Stage::Prepare, Steps::Before),
    needed: proxies,
    text: |renderer, _| {
        Proxies {
            description: "GitLab backup: query the services that systemd does not manage",
            begin: renderer.helper(&["proxies", "begin"]),
            end: renderer.helper(&["proxies", "end"]),
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "proxies.service")]
struct Proxies {
    description: &'static str,
    begin: Text,
    end: Text,
}

pub const DOWN: Row = Row {
    name: "gitlab-backup-proxies-down.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: proxies,
    text: |renderer, unit| {
        let before = renderer.before(Stage::Window, unit);
        StepService {
            binds_to: Text::names([Unit::Window, Unit::Run]),
            ..ensure_down(renderer).after([vec![Unit::Window], before].concat())
        }
        .render()
    },
};

/// The step at the end of a window that checks that no proxied service was started.
pub fn ensure_down(renderer: &Renderer<'_>) -> StepService {
    StepService {
        description: Text::plain("GitLab backup: check that no service was started in the window"),
        exec: renderer.helper(&["proxies-down"]),
        timeout: Text::plain(STATUS_TIMEOUT),
        ..StepService::base()
    }
}
