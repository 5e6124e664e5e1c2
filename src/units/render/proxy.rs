//! The units in place of what systemd does not manage itself, and what keeps them true. Other
//! people's programs: without a sandbox that could break them, and without a umask that what they
//! start would inherit.

use askama::Template;

use crate::config::Proxy;
use crate::units::Unit;
use crate::units::text::Text;
use crate::values::Timespan;

use super::Renderer;
use super::steps::StepService;

/// Beside what the helper waits for: it gives up by itself, and says why.
const MARGIN: u64 = 30;
/// What the answers to a question may take.
const ANSWERS: Timespan = Timespan::from_secs(120);

#[derive(Template)]
#[template(path = "proxy.service")]
struct ProxyService {
    /// What the reader of the unit should know.
    notes: Vec<Text>,
    description: Text,
    after: Option<Text>,
    start: Text,
    stop: Text,
    timeout: Text,
}

#[derive(Template)]
#[template(path = "keep-down.service")]
struct KeepDown {
    exec: Text,
}

#[derive(Template)]
#[template(path = "proxies.service")]
struct Proxies {
    description: &'static str,
    begin: Text,
    end: Text,
}

impl Renderer<'_> {
    pub(super) fn proxy(&self, name: &str) -> askama::Result<String> {
        let Some(proxy) = self.config.gitlab.proxies.iter().find(|proxy| proxy.name == name) else {
            return Ok(String::new());
        };
        let note =
            |word: &str, argv: &[String]| Text::prose(&format!("{word}: {}", argv.join(" ")));
        let after: Vec<Unit> = proxy.after.iter().map(|name| Unit::Proxy(name.clone())).collect();
        ProxyService {
            notes: vec![
                note("start", &proxy.start),
                note("stop", &proxy.stop),
                note("status", &proxy.status),
            ],
            description: Text::prose(&format!(
                "GitLab's {name}, which systemd does not manage itself"
            )),
            after: (!after.is_empty()).then(|| Text::names(after)),
            start: self.helper(&["proxy", "start", name]),
            stop: self.helper(&["proxy", "stop", name]),
            timeout: Text::plain(limit(proxy)),
        }
        .render()
    }

    /// What asks the services and brings the units in accord.
    pub(super) fn proxies(&self) -> askama::Result<String> {
        Proxies {
            description: "GitLab backup: ask which of the services run that systemd does not manage",
            begin: self.helper(&["proxies", "begin"]),
            end: self.helper(&["proxies", "end"]),
        }
        .render()
    }

    /// What keeps them down after a reboot, while GitLab is half restored.
    pub(super) fn keep_down(&self) -> askama::Result<String> {
        KeepDown { exec: self.helper(&["restore", "keep-down"]) }.render()
    }

    /// What asks them again when everything is captured.
    pub(super) fn proxies_down(&self, base: StepService) -> StepService {
        StepService {
            description: Text::plain(
                "GitLab backup: nothing was started behind systemd's back, GitLab is down",
            ),
            exec: self.helper(&["proxies-down"]),
            timeout: Text::plain(ANSWERS),
            ..base
        }
    }
}

fn limit(proxy: &Proxy) -> Timespan {
    Timespan::from_secs(proxy.timeout + MARGIN)
}
