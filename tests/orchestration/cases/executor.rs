//! The executor is killed, or the run is stopped by hand.

use super::*;

/// `how` ends the executor in a stage: the run is complete only if the manifest was written.
async fn ends(stage: &str, how: fn(&Host)) {
    let host = in_stage(stage).await;
    how(&host);
    let record = host.end().await;
    // The manifest is written before stage "finish".
    assert_eq!(is_complete(&record), stage == "finish", "{}", why(&record));
    assert!(record.finished.is_some());
    assert_back_and_next_run(&host, &[]).await;
}

fn kill(host: &Host) {
    host.systemd.kills(RUN);
}

fn stop(host: &Host) {
    host.systemd.admin_stops(TARGET);
}

cases! {
    killed_in_prepare: ends("prepare", kill);
    killed_in_the_window: ends("window", kill);
    killed_in_store: ends("store", kill);
    killed_in_finish: ends("finish", kill);
    stopped_in_prepare: ends("prepare", stop);
    stopped_in_the_window: ends("window", stop);
    stopped_in_store: ends("store", stop);
    stopped_in_finish: ends("finish", stop);
    killed_while_gitlab_returns: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 30.0);
        host.wait_until_activating(RESUME).await;
        kill(&host);
        let record = host.end().await;
        assert!(why(&record).contains("SIGKILL"), "{}", why(&record));
        assert_back_and_next_run(&host, &[]).await;
    };
    killed_while_gitlab_stops: async {
        let host = with_steps().await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(std::time::Duration::from_secs(5)));
        host.begin();
        host.wait_until(|host| host.systemd.sub(SIDEKIQ) == "stop-sigterm").await;
        kill(&host);
        host.end().await;
        assert_back_and_next_run(&host, &[]).await;
    };
    the_record_has_the_reason: async {
        let host = in_stage("store").await;
        stop(&host);
        let record = host.end().await;
        assert_eq!(why(&record), "stopped by request in stage store");
        let host = in_stage("store").await;
        kill(&host);
        let record = host.end().await;
        assert_eq!(why(&record), "the executor was killed by SIGKILL in stage store");
    };
    a_second_start_during_a_run_has_no_effect: async {
        let host = in_stage("prepare").await;
        host.begin();
        assert!(is_complete(&host.end().await));
        assert_eq!(host.systemd.started(RUN), 1);
    };
    killed_with_resume: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 30.0);
        host.wait_until_activating(RESUME).await;
        kill(&host);
        for _ in 0..3 {
            host.wait_until(|host| host.systemd.sub(RESUME) == "start").await;
            host.systemd.kills(RESUME);
        }
        host.end().await;
        assert_back_and_next_run(&host, &[]).await;
    };
}
