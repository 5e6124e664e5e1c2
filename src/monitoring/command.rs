//! The report to a program of one's own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::host::process::{ended, tail};

use super::{Report, Reporter};

/// argv, and how long it may take.
pub(super) struct Program<'a> {
    pub(super) argv: &'a [String],
    pub(super) timeout: Duration,
}

impl Program<'_> {
    async fn run(&self, report: &Report) -> Result<()> {
        let (program, arguments) = self.argv.split_first().context("the command is empty")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.env("GITLAB_BACKUP_OUTCOME", if report.success { "success" } else { "failure" });
        command.env("GITLAB_BACKUP_RUN_ID", report.run.as_ref().map_or("", |run| run.as_str()));
        // What we were given is not for others.
        command.env_remove("CREDENTIALS_DIRECTORY");
        let json = serde_json::to_vec(report)?;
        let talk = async {
            let mut child = command.spawn()?;
            if let Some(mut input) = child.stdin.take() {
                // A program that does not read it is fine.
                let _ = input.write_all(&json).await;
            }
            ended(child).await
        };
        let Ok(end) = timeout(self.timeout, talk).await else {
            bail!("{program} took longer than {:?}", self.timeout);
        };
        let end = end.with_context(|| format!("cannot run {program}"))?;
        ensure!(end.status.success(), "{program}: {}: {}", end.status, tail(end.said.as_bytes()));
        Ok(())
    }
}

impl Reporter for Program<'_> {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        self.run(report).boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        let program = self.argv.first().map_or("", String::as_str);
        let seen = match Path::new(program).is_file() {
            true => Ok(format!("{program} is there")),
            false => Err(anyhow::anyhow!("{program} is not there")),
        };
        ready(seen).boxed_local()
    }
}
