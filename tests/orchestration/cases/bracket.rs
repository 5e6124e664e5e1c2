//! The window and the pause: what ends them too early, or too late.

use std::time::Duration;

use super::*;

/// The window is ended by this, the run fails, and GitLab is back.
async fn ended_by(how: fn(&Host), words: &str) {
    let host = in_stage("window").await;
    how(&host);
    let record = host.end().await;
    assert!(!is_complete(&record));
    assert!(why(&record).contains(words), "{}", why(&record));
    back_and_next(&host, &[]).await;
}

/// A helper in the window is killed.
async fn killed(unit: &str) {
    let host = with_steps().await;
    host.takes(unit, 2.0);
    host.begin();
    host.at_work(unit).await;
    host.systemd.kills(unit);
    let record = host.end().await;
    assert!(!is_complete(&record));
    assert_eq!(record.failure.as_ref().unwrap().unit.as_deref(), Some(unit), "{}", why(&record));
    back_and_next(&host, &[]).await;
}

/// A host on which GitLab may be down for this long.
async fn at_most(seconds: u32) -> Host {
    let host = Host::new(&format!("[gitlab]\nmax-downtime = \"{seconds}s\"\n{STEPS}")).await;
    host.takes(&step("window"), 3.0);
    host
}

cases! {
    the_window_is_stopped: ended_by(|host| host.systemd.admin_stops(WINDOW), "was closed too early: success");
    the_pause_is_stopped: ended_by(|host| host.systemd.admin_stops(PAUSE), "closed too early");
    puma_is_started: ended_by(|host| host.systemd.admin_starts(PUMA), "gitlab-puma.service was started");
    all_of_gitlab_is_started: ended_by(|host| host.systemd.admin_starts(GITLAB), "was started");
    workhorse_is_started_with_what_it_wants: ended_by(|host| host.systemd.admin_starts(WORKHORSE), "was started");
    the_snapshot_of_postgresql_is_killed: killed("gitlab-backup-pgsnapshot.service");
    the_snapshot_of_the_files_is_killed: killed("gitlab-backup-fssnapshot.service");
    the_files_in_the_window_are_killed: killed("gitlab-backup-files-live.service");
    a_step_in_the_window_is_killed: killed("gitlab-backup-step-window.service");
    a_step_in_the_window_fails: async {
        let host = with_steps().await;
        host.ends_with(&step("window"), &[7]);
        let record = host.run().await;
        assert!(!is_complete(&record));
        assert!(why(&record).contains("failed"), "{}", why(&record));
        back_and_next(&host, &[]).await;
    };
    a_step_that_hangs_is_ended_by_the_deadline: async {
        let host = at_most(8).await;
        host.takes(&step("window"), 3600.0);
        let record = host.run().await;
        assert!(why(&record).contains("max-downtime"), "{}", why(&record));
        let lasted = record.finished.unwrap().duration_since(record.started);
        assert!(lasted.as_secs() < 20, "{lasted}");
        host.takes(&step("window"), 1.0);
        back_and_next(&host, &[]).await;
    };
    a_deadline_whose_timer_counts_anew_is_kept: async {
        let host = at_most(8).await;
        host.takes(&step("window"), 3600.0);
        host.begin();
        host.at_work(&step("window")).await;
        // As after a daemon-reload.
        host.systemd.admin_stops("gitlab-backup-deadline.timer");
        let record = host.end().await;
        assert!(why(&record).contains("max-downtime"), "{}", why(&record));
        let lasted = record.finished.unwrap().duration_since(record.started);
        assert!(lasted.as_secs() < 20, "{lasted}");
        host.is_back(&[]);
    };
    a_step_that_ignores_sigterm_is_killed: async {
        let host = at_most(8).await;
        host.takes(&step("window"), 3600.0);
        host.systemd.script(&step("window"), |script| script.stops_in = None);
        let record = host.run().await;
        assert!(!is_complete(&record));
        host.is_back(&[]);
    };
    a_stop_that_hangs_is_ended_by_the_deadline_and_a_kill: async {
        let host = at_most(8).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = None);
        host.systemd.file(SIDEKIQ, |file| file.stop_timeout = None);
        let record = host.run().await;
        assert!(!is_complete(&record));
        host.until(|host| host.systemd.is_active(SIDEKIQ)).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(Duration::ZERO));
        back_and_next(&host, &[]).await;
    };
    the_same_with_the_executor_killed: async {
        let host = at_most(8).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = None);
        host.systemd.file(SIDEKIQ, |file| file.stop_timeout = None);
        host.begin();
        host.until(|host| host.systemd.sub(SIDEKIQ) == "stop-sigterm").await;
        host.systemd.kills(RUN);
        host.end().await;
        host.until(|host| host.systemd.is_active(SIDEKIQ)).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(Duration::ZERO));
        back_and_next(&host, &[]).await;
    };
    a_deadline_of_an_earlier_window_does_not_end_this_one: async {
        let host = at_most(8).await;
        host.ends_with(&step("window"), &[1]);
        assert!(!is_complete(&host.run().await));
        host.takes(&step("window"), 7.0);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
    };
    a_window_that_cannot_open_leaves_gitlab_alone: async {
        let host = with_steps().await;
        host.systemd.script(PAUSE, |script| script.condition = Some("ConditionPathExists=/nowhere".into()));
        let puma = host.systemd.started(PUMA);
        let record = host.run().await;
        assert!(!is_complete(&record));
        host.is_back(&[]);
        assert!(host.systemd.started(PUMA) <= puma + 1);
    };
}
