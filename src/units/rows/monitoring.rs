//! The units for silences and reports.

use std::path::Path;

use askama::Template;

use crate::config::Stage;
use crate::paths;
use crate::units::Unit;
use crate::units::render::credential::line;
use crate::units::render::step::StepService;
use crate::units::render::{Renderer, Sandbox};
use crate::units::row::{Row, Steps, When, silences};
use crate::units::text::Text;
use crate::values::{SecretSource, Timespan};

pub const SILENCE: Row = Row {
    name: "gitlab-backup-silence.service",
    when: When::Start,
    needed: silences,
    text: |renderer, _| {
        Silence {
            begin: renderer.helper(&["silence", "begin"]),
            end: renderer.helper(&["silence", "end"]),
            credentials: silence_credentials(renderer),
            sandbox: network_sandbox(),
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "silence.service")]
struct Silence {
    begin: Text,
    end: Text,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

pub const SILENCED: Row = Row {
    name: "gitlab-backup-silenced.service",
    when: When::Member(Stage::Prepare, Steps::After),
    needed: silences,
    text: |renderer, unit| {
        let wait = renderer.config.monitoring.wait.duration().as_secs();
        StepService {
            description: Text::plain("GitLab backup: wait until the silences take effect"),
            exec: renderer.helper(&["silenced"]),
            timeout: Text::plain(Timespan::from_secs(wait + 120)),
            credentials: silence_credentials(renderer),
            // The record of silences outlives the unit, so it is in the state directory.
            sandbox: Some(Sandbox {
                writable: Some(Text::paths([Path::new(paths::STATE)])),
                ..network_sandbox()
            }),
            ..StepService::base().requiring(renderer.before(Stage::Prepare, unit))
        }
        .render()
    },
};

pub const UNSILENCE_TIMER: Row = Row {
    name: "gitlab-backup-unsilence.timer",
    when: When::End,
    needed: silences,
    text: |renderer, _| {
        UnsilenceTimer { grace: Text::plain(renderer.config.monitoring.grace) }.render()
    },
};

#[derive(Template)]
#[template(path = "unsilence.timer")]
struct UnsilenceTimer {
    grace: Text,
}

pub const UNSILENCE: Row = Row {
    name: "gitlab-backup-unsilence.service",
    when: When::End,
    needed: silences,
    text: |renderer, _| {
        Unsilence {
            exec: renderer.helper(&["unsilence"]),
            credentials: silence_credentials(renderer),
            sandbox: network_sandbox(),
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "unsilence.service")]
struct Unsilence {
    exec: Text,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

pub const REPORT_START: Row = Row {
    name: "gitlab-backup-report-start.service",
    when: When::Start,
    needed: |config| config.monitoring.reports.iter().any(|report| report.system().wants_start()),
    text: |renderer, _| {
        Report {
            description: "GitLab backup: report the start of a run",
            after: Text::names(["network.target"]),
            exec: renderer.helper(&["report", "begin"]),
            timeout: Text::plain(Timespan::from_secs(60)),
            credentials: report_credentials(renderer),
            sandbox: Some(network_sandbox()),
        }
        .render()
    },
};

pub const REPORT: Row = Row {
    name: "gitlab-backup-report.service",
    when: When::End,
    needed: |config| !config.monitoring.reports.is_empty(),
    text: |renderer, _| {
        let start = renderer.plan.needed(Unit::ReportStart);
        Report {
            description: "GitLab backup: report the result of a run",
            after: Text::names(start.into_iter().chain([Unit::Run])),
            exec: renderer.helper(&["report", "end"]),
            timeout: Text::plain(Timespan::from_secs(30 * 60)),
            credentials: report_credentials(renderer),
            sandbox: report_sandbox(renderer),
        }
        .render()
    },
};

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

/// A sandbox with network access that can run zabbix_sender.
fn network_sandbox() -> Sandbox {
    Sandbox { network: true, foreign: true, ..Sandbox::new("") }
}

/// The sandbox of reports; `None` if a report runs a configured command, which may need any
/// privilege.
fn report_sandbox(renderer: &Renderer<'_>) -> Option<Sandbox> {
    let mut writable: Vec<&Path> = Vec::new();
    for report in &renderer.config.monitoring.reports {
        let system = report.system();
        if system.program().is_some() {
            return None;
        }
        writable.extend(system.file().and_then(Path::parent));
    }
    // With `-`, a missing directory does not fail the unit's start, and the helper reports it.
    let writable: Vec<String> =
        writable.iter().map(|path| format!("-{}", path.display())).collect();
    let writable = (!writable.is_empty()).then(|| Text::paths(writable.iter().map(Path::new)));
    // The directory may belong to the exporter's user.
    let capabilities = if writable.is_some() { "CAP_DAC_OVERRIDE" } else { "" };
    Some(Sandbox { writable, capabilities, ..network_sandbox() })
}

/// The credentials of the silences.
fn silence_credentials(renderer: &Renderer<'_>) -> Vec<Text> {
    let silences = &renderer.config.monitoring.silences;
    lines(silences.iter().flat_map(|silence| silence.system().secrets()).collect())
}

/// The credentials of the reports.
fn report_credentials(renderer: &Renderer<'_>) -> Vec<Text> {
    let reports = &renderer.config.monitoring.reports;
    lines(reports.iter().flat_map(|report| report.system().secrets()).collect())
}

/// The settings for `secrets`, each once: two monitoring systems may share a secret.
fn lines(secrets: Vec<(&'static str, &SecretSource)>) -> Vec<Text> {
    let mut once: Vec<(&str, &SecretSource)> = Vec::new();
    for secret in secrets {
        if !once.contains(&secret) {
            once.push(secret);
        }
    }
    once.into_iter().map(|(id, source)| line(id, source)).collect()
}
