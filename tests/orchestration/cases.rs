//! The faults of a run, by kind.

mod bracket;
mod comeback;
mod executor;
mod hold;
mod phases;
mod restore;
mod signals;
mod silence;
mod stop;
mod unit;

/// Defines a test for each case.
macro_rules! cases {
    ($($name:ident: $case:expr;)*) => { $(#[test] fn $name() { crate::play($case); })* };
}
pub(crate) use cases;

use gitlab_backup::machine::Base;
use gitlab_backup::systemd::ServiceManager;

use crate::host::*;

/// A configured step in each stage.
pub const STEPS: &str = r#"
[[step]]
name = "prepare"
stage = "prepare"
command = ["/bin/true"]
[[step]]
name = "window"
stage = "window"
command = ["/bin/true"]
[[step]]
name = "store"
stage = "store"
command = ["/bin/true"]
[[step]]
name = "finish"
stage = "finish"
command = ["/bin/true"]
"#;

pub fn step(stage: &str) -> String {
    format!("gitlab-backup-step-{stage}.service")
}

/// A host with these steps, each of which takes three seconds.
pub async fn with_steps() -> Host {
    let host = Host::new(STEPS).await;
    for stage in ["prepare", "window", "store", "finish"] {
        host.takes(&step(stage), 3.0);
    }
    host
}

/// A host whose run has reached the configured step of this stage.
pub async fn in_stage(stage: &str) -> Host {
    let host = with_steps().await;
    host.begin();
    host.wait_until_activating(&step(stage)).await;
    host
}

/// Asserts that all of GitLab except `down` is up, before and after another run, which is complete.
pub async fn assert_back_and_next_run(host: &Host, down: &[&str]) {
    host.assert_back(down);
    host.assert_clean();
    let record = host.run().await;
    assert!(is_complete(&record), "the next run: {}", why(&record));
    host.assert_back(down);
    host.assert_clean();
}
