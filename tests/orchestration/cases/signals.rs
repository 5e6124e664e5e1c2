//! systemd sends no signals, or the connection is lost: polling must be enough. And while nothing
//! happens, there are few calls.

use std::time::Duration;

use super::*;

/// systemd sends no signals from this stage on, and the run is complete.
async fn silent_from(stage: &str) {
    let host = in_stage(stage).await;
    host.systemd.mute();
    let record = host.end().await;
    assert!(is_complete(&record), "{}", why(&record));
    host.assert_back(&[]);
}

/// The connection is lost again and again in this stage, and the run is complete.
async fn lost_in(stage: &str) {
    let host = in_stage(stage).await;
    for _ in 0..10 {
        host.systemd.interrupt_connection();
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    assert!(is_complete(&host.end().await));
    host.assert_back(&[]);
}

/// An admin's stop of these units, while Puma is starting, is seen in their states before the
/// signals of its jobs arrive. All units except `down` come back.
async fn stopped_before_the_signals(stopped: &[&str], down: &[&str]) {
    let host = in_stage("window").await;
    host.systemd.delays_events(Duration::from_millis(1200));
    host.takes(PUMA, 8.0);
    host.wait_until(|host| host.systemd.is_active(SIDEKIQ) && host.systemd.sub(PUMA) == "start")
        .await;
    // The signals of the starts have arrived.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for unit in stopped {
        host.systemd.admin_stops(unit);
    }
    host.end().await;
    host.assert_back(down);
}

cases! {
    all_is_stopped_before_the_signals: stopped_before_the_signals(&[GITLAB], &ALL);
    puma_is_stopped_before_the_signals: stopped_before_the_signals(&[PUMA], &[PUMA]);
    workhorse_is_stopped_before_the_signals: stopped_before_the_signals(&[WORKHORSE], &[WORKHORSE]);
    sidekiq_is_stopped_before_the_signals: stopped_before_the_signals(&[SIDEKIQ], &[SIDEKIQ]);
    no_signals_from_prepare_on: silent_from("prepare");
    no_signals_from_the_window_on: silent_from("window");
    no_signals_from_store_on: silent_from("store");
    the_connection_is_lost_in_prepare: lost_in("prepare");
    the_connection_is_lost_in_the_window: lost_in("window");
    the_connection_is_lost_in_store: lost_in("store");
    no_signals_and_the_executor_is_killed: async {
        let host = in_stage("window").await;
        host.systemd.mute();
        host.systemd.kills(RUN);
        host.end().await;
        assert_back_and_next_run(&host, &[]).await;
    };
    no_signals_and_puma_is_slow: async {
        let host = in_stage("window").await;
        host.systemd.mute();
        host.takes(PUMA, 60.0);
        assert!(is_complete(&host.end().await));
        host.assert_back(&[]);
    };
    no_signals_and_puma_is_started_in_the_window: async {
        let host = in_stage("window").await;
        host.systemd.mute();
        host.systemd.admin_starts(PUMA);
        assert!(!is_complete(&host.end().await));
        host.assert_back(&[]);
    };
    few_calls_while_a_step_runs: async {
        let host = Host::new("").await;
        host.patience.set(Duration::from_secs(2 * 3600));
        host.takes("gitlab-backup-postgresql.service", 3600.0);
        host.begin();
        host.wait_until_activating("gitlab-backup-postgresql.service").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (before, seconds) = (host.systemd.calls(), 3000);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let calls = host.systemd.calls() - before;
        assert!(calls < 2 * seconds, "{calls} calls in {seconds} s");
        assert!(is_complete(&host.end().await));
    };
    few_calls_while_puma_starts: async {
        let host = in_stage("window").await;
        host.systemd.file(PUMA, |file| file.start_timeout = None);
        host.takes(PUMA, 250.0);
        host.wait_until(|host| host.systemd.sub(PUMA) == "start").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (before, seconds) = (host.systemd.calls(), 200);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let calls = host.systemd.calls() - before;
        assert!(calls < 5 * seconds, "{calls} calls in {seconds} s");
        host.end().await;
        host.assert_back(&[]);
    };
}
