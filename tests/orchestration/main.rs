//! The orchestration against a systemd in memory: what the executor, resume and the brackets make of
//! what may happen to a run. Seconds of a host are microseconds here. What only a real systemd can
//! show is in the lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod cases;
mod host;
mod restore;
mod systemd;

use host::*;

/// Plays a case in paused time.
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
        host.is_back(&[]);
        host.is_clean();
    });
}
