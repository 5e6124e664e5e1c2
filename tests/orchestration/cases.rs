//! What may happen to a run, by kind.

mod bracket;
mod comeback;
mod executor;
mod restore;
mod silence;
mod stop;
mod unit;

/// Each case is a test of its own, in paused time.
macro_rules! cases {
    ($($name:ident: $case:expr;)*) => { $(#[test] fn $name() { crate::play($case); })* };
}
pub(crate) use cases;

use crate::host::*;

/// A step of a user's in each stage, each long enough to be hit.
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

/// A host with those steps, each of three seconds.
pub async fn with_steps() -> Host {
    let host = Host::new(STEPS).await;
    for stage in ["prepare", "window", "store", "finish"] {
        host.takes(&step(stage), 3.0);
    }
    host
}

/// A run that has come as far as this stage's step.
pub async fn in_stage(stage: &str) -> Host {
    let host = with_steps().await;
    host.begin();
    host.at_work(&step(stage)).await;
    host
}

/// GitLab is back but for what should be down, and the next run is complete.
pub async fn back_and_next(host: &Host, down: &[&str]) {
    host.is_back(down);
    host.is_clean();
    let record = host.run().await;
    assert!(is_complete(&record), "the next run: {}", why(&record));
    host.is_back(down);
    host.is_clean();
}
