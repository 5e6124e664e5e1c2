//! The executor is killed, or the run is stopped by hand.

use super::*;

async fn ends(stage: &str, how: fn(&Host)) {
    let host = in_stage(stage).await;
    how(&host);
    let record = host.end().await;
    // When the finish stage begins, the manifest is there.
    assert_eq!(is_complete(&record), stage == "finish", "{}", why(&record));
    assert!(record.finished.is_some());
    back_and_next(&host, &[]).await;
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
        host.at_work(RESUME).await;
        kill(&host);
        let record = host.end().await;
        assert!(why(&record).contains("SIGKILL"), "{}", why(&record));
        back_and_next(&host, &[]).await;
    };
    killed_while_gitlab_stops: async {
        let host = with_steps().await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(std::time::Duration::from_secs(5)));
        host.begin();
        host.until(|host| host.systemd.sub(SIDEKIQ) == "stop-sigterm").await;
        kill(&host);
        host.end().await;
        back_and_next(&host, &[]).await;
    };
    the_reason_is_told: async {
        let host = in_stage("store").await;
        stop(&host);
        let record = host.end().await;
        assert_eq!(why(&record), "stopped by request in stage store");
        let host = in_stage("store").await;
        kill(&host);
        let record = host.end().await;
        assert_eq!(why(&record), "the executor was killed by SIGKILL in stage store");
    };
    asked_for_twice_it_runs_once: async {
        let host = in_stage("prepare").await;
        host.begin();
        assert!(is_complete(&host.end().await));
        assert_eq!(host.systemd.started(RUN), 1);
    };
    killed_with_resume: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 30.0);
        host.at_work(RESUME).await;
        kill(&host);
        for _ in 0..3 {
            host.until(|host| host.systemd.sub(RESUME) == "start").await;
            host.systemd.kills(RESUME);
        }
        host.end().await;
        back_and_next(&host, &[]).await;
    };
}
