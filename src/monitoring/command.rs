//! `[monitoring.command]`: passes the report to a command of the admin.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process;
use tokio::time::timeout;

use crate::host::process::{ended, tail};
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, List, Section};
use crate::values::Timespan;

use super::{Monitoring, Report, ReportConfig, Reporter, System};

const TIMEOUT: Timespan = Timespan::from_secs(60);

/// `[monitoring.command]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Raw {
    command: List,
    timeout: Field<String>,
}

/// A command that reads the report, as JSON, from its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, by its absolute path, and its arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Timespan,
}

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    if raw.command.is_none() {
        checker.refuse(
            &section.place("command"),
            Refusal::new("is missing", "a program and its arguments"),
        );
    }
    let timeout = checker
        .value(section, "timeout", raw.timeout.as_ref(), |text| rules::timespan_above_zero(text));
    let argv = checker.command(section, &raw.command);
    let command = argv.map(|argv| Command { argv, timeout: timeout.unwrap_or(TIMEOUT) });
    monitoring.reports.extend(command.map(ReportConfig::Command));
}

impl Command {
    async fn run(&self, report: &Report) -> Result<()> {
        let (program, arguments) = self.argv.split_first().context("the command is empty")?;
        let mut command = process::Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.env("GITLAB_BACKUP_OUTCOME", if report.success { "success" } else { "failure" });
        command.env("GITLAB_BACKUP_RUN_ID", report.run.as_ref().map_or("", |run| run.as_str()));
        // The command has no use for the unit's secrets.
        command.env_remove("CREDENTIALS_DIRECTORY");
        let json = serde_json::to_vec(report)?;
        let execution = async {
            let mut child = command.spawn()?;
            if let Some(mut input) = child.stdin.take() {
                // The write fails if the command exits without reading, which it may.
                let _ = input.write_all(&json).await;
            }
            ended(child).await
        };
        let limit = self.timeout.duration();
        let Ok(end) = timeout(limit, execution).await else {
            bail!("{program} took longer than {limit:?}");
        };
        let end = end.with_context(|| format!("cannot run {program}"))?;
        ensure!(end.status.success(), "{program}: {}: {}", end.status, tail(end.said.as_bytes()));
        Ok(())
    }
}

impl System for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        let program = self.program().unwrap_or_default();
        let result = match Path::new(program).is_file() {
            true => Ok(format!("{program} is there")),
            false => Err(anyhow!("{program} does not exist")),
        };
        ready(result).boxed_local()
    }
}

impl Reporter for Command {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        self.run(report).boxed_local()
    }

    fn program(&self) -> Option<&str> {
        self.argv.first().map(String::as_str)
    }
}
