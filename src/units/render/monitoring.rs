//! The units that tell the monitoring.

use std::path::Path;

use askama::Template;

use crate::config::monitoring::ReportConfig;
use crate::values::{SecretSource, Timespan};

use super::super::Unit;
use super::super::text::Text;
use super::credential::line;
use super::{Renderer, Sandbox};

#[derive(Template)]
#[template(path = "silence.service")]
struct Silence {
    begin: Text,
    end: Text,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "unsilence.timer")]
struct UnsilenceTimer {
    grace: Text,
}

#[derive(Template)]
#[template(path = "unsilence.service")]
struct Unsilence {
    exec: Text,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "report.service")]
struct Report {
    description: &'static str,
    after: Text,
    exec: Text,
    timeout: Text,
    credentials: Vec<Text>,
    sandbox: Option<Sandbox>,
}

impl Renderer<'_> {
    /// The units with a template in here.
    pub(super) fn monitoring(&self, unit: &Unit) -> askama::Result<String> {
        match unit {
            Unit::Silence => Silence {
                begin: self.helper(&["silence", "begin"]),
                end: self.helper(&["silence", "end"]),
                credentials: self.silence_credentials(),
                sandbox: told(),
            }
            .render(),
            Unit::UnsilenceTimer => {
                UnsilenceTimer { grace: Text::plain(self.config.monitoring.grace) }.render()
            }
            Unit::Unsilence => Unsilence {
                exec: self.helper(&["unsilence"]),
                credentials: self.silence_credentials(),
                sandbox: told(),
            }
            .render(),
            Unit::ReportStart => Report {
                description: "GitLab backup: tell that a run has begun",
                after: Text::names(["network.target"]),
                exec: self.helper(&["report", "begin"]),
                timeout: Text::plain(Timespan::from_secs(60)),
                credentials: self.report_credentials(),
                sandbox: Some(told()),
            }
            .render(),
            _ => Report {
                description: "GitLab backup: tell how a run went",
                after: Text::names(self.plan.report_start().into_iter().chain([Unit::Run])),
                exec: self.helper(&["report", "end"]),
                timeout: Text::plain(Timespan::from_secs(30 * 60)),
                credentials: self.report_credentials(),
                sandbox: self.report_sandbox(),
            }
            .render(),
        }
    }

    /// `LoadCredential=` of what the silences need.
    pub(super) fn silence_credentials(&self) -> Vec<Text> {
        let silences = &self.config.monitoring.silences;
        lines(silences.iter().flat_map(|silence| silence.secrets()).collect())
    }

    fn report_credentials(&self) -> Vec<Text> {
        lines(self.config.monitoring.reports.iter().flat_map(|report| report.secrets()).collect())
    }

    /// None where an own command is to be run, which may do anything.
    fn report_sandbox(&self) -> Option<Sandbox> {
        let mut writable: Vec<&Path> = Vec::new();
        for report in &self.config.monitoring.reports {
            match report {
                ReportConfig::Command { .. } => return None,
                ReportConfig::Prometheus(path) => writable.extend(path.parent()),
                _ => {}
            }
        }
        // With `-`: that one is missing is for the report itself to say, in words, and not for the
        // unit's start.
        let writable: Vec<String> =
            writable.iter().map(|path| format!("-{}", path.display())).collect();
        let writable = (!writable.is_empty()).then(|| Text::paths(writable.iter().map(Path::new)));
        // The exporter's directory may belong to its user.
        let capabilities = if writable.is_some() { "CAP_DAC_OVERRIDE" } else { "" };
        Some(Sandbox { writable, capabilities, ..told() })
    }
}

/// Network, and zabbix_sender.
pub(super) fn told() -> Sandbox {
    Sandbox { network: true, foreign: true, ..Sandbox::new("") }
}

/// Two systems may share a secret.
fn lines(secrets: Vec<(&'static str, &SecretSource)>) -> Vec<Text> {
    let mut once: Vec<(&str, &SecretSource)> = Vec::new();
    for secret in secrets {
        if !once.contains(&secret) {
            once.push(secret);
        }
    }
    once.into_iter().map(|(id, source)| line(id, source)).collect()
}
