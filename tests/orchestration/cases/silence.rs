//! systemd tells nothing, or the connection is lost: looks have to do. And while nothing happens,
//! next to nothing is asked.

use std::time::Duration;

use super::*;

/// Nothing is told from this stage on.
async fn silent_from(stage: &str) {
    let host = in_stage(stage).await;
    host.systemd.says_nothing();
    let record = host.end().await;
    assert!(is_complete(&record), "{}", why(&record));
    host.is_back(&[]);
}

/// The connection is lost over and over.
async fn lost_in(stage: &str) {
    let host = in_stage(stage).await;
    for _ in 0..10 {
        host.systemd.loses_connection();
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    assert!(is_complete(&host.end().await));
    host.is_back(&[]);
}

cases! {
    nothing_is_told_from_prepare_on: silent_from("prepare");
    nothing_is_told_in_the_window: silent_from("window");
    nothing_is_told_in_store: silent_from("store");
    the_connection_is_lost_in_prepare: lost_in("prepare");
    the_connection_is_lost_in_the_window: lost_in("window");
    the_connection_is_lost_in_store: lost_in("store");
    nothing_is_told_and_the_executor_is_killed: async {
        let host = in_stage("window").await;
        host.systemd.says_nothing();
        host.systemd.kills(RUN);
        host.end().await;
        back_and_next(&host, &[]).await;
    };
    nothing_is_told_and_puma_is_slow: async {
        let host = in_stage("window").await;
        host.systemd.says_nothing();
        host.takes(PUMA, 60.0);
        assert!(is_complete(&host.end().await));
        host.is_back(&[]);
    };
    nothing_is_told_and_puma_is_started_in_the_window: async {
        let host = in_stage("window").await;
        host.systemd.says_nothing();
        host.systemd.admin_starts(PUMA);
        assert!(!is_complete(&host.end().await));
        host.is_back(&[]);
    };
    hardly_anything_is_asked_while_a_step_works: async {
        let host = Host::new("").await;
        host.patience.set(Duration::from_secs(2 * 3600));
        host.takes("gitlab-backup-postgresql.service", 3600.0);
        host.begin();
        host.at_work("gitlab-backup-postgresql.service").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (before, seconds) = (host.systemd.calls(), 3000);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let calls = host.systemd.calls() - before;
        assert!(calls < 2 * seconds, "{calls} calls in {seconds} s");
        assert!(is_complete(&host.end().await));
    };
    hardly_anything_is_asked_while_puma_starts: async {
        let host = in_stage("window").await;
        host.systemd.file(PUMA, |file| file.start_timeout = None);
        host.takes(PUMA, 250.0);
        host.until(|host| host.systemd.sub(PUMA) == "start").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (before, seconds) = (host.systemd.calls(), 200);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let calls = host.systemd.calls() - before;
        assert!(calls < 5 * seconds, "{calls} calls in {seconds} s");
        host.end().await;
        host.is_back(&[]);
    };
}
