//! The orchestration on a simulated systemd in memory: how the executor, resume and the brackets
//! react to faults of a run. Time is simulated too, so that hours take milliseconds. Tests that
//! need a real systemd are in the lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod cases;
mod host;
mod kernel;
#[path = "../memory/mod.rs"]
mod memory;
mod restore;
mod systemd;

use host::*;

/// Executes a case in simulated time.
fn play<F: Future<Output = ()>>(case: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, case);
}

#[test]
fn a_run_is_complete_and_gitlab_is_back() {
    play(async {
        let host = Host::new("").await;
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.assert_back(&[]);
        host.assert_clean();
    });
}
