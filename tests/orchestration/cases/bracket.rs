//! The window and the pause end too early or too late.

use std::time::Duration;

use super::*;

/// `how` ends the window: the run fails with `words`, and GitLab is back.
async fn ended_by(how: fn(&Host), words: &str) {
    let host = in_stage("window").await;
    how(&host);
    let record = host.end().await;
    assert!(!is_complete(&record));
    assert!(why(&record).contains(words), "{}", why(&record));
    assert_back_and_next_run(&host, &[]).await;
}

/// A unit is killed in the window: the run fails because of it.
async fn killed(unit: &str) {
    let host = with_steps().await;
    host.takes(unit, 2.0);
    host.begin();
    host.wait_until_activating(unit).await;
    host.systemd.kills(unit);
    let record = host.end().await;
    assert!(!is_complete(&record));
    assert_eq!(record.failure.as_ref().unwrap().unit.as_deref(), Some(unit), "{}", why(&record));
    assert_back_and_next_run(&host, &[]).await;
}

/// A host with this `max-downtime`, and a step of three seconds in the window.
async fn with_max_downtime(seconds: u32) -> Host {
    let host = Host::new(&format!("[gitlab]\nmax-downtime = \"{seconds}s\"\n{STEPS}")).await;
    host.takes(&step("window"), 3.0);
    host
}

cases! {
    the_window_is_stopped: ended_by(|host| host.systemd.admin_stops(WINDOW), "was closed too \
                                                                              early: success");
    the_pause_is_stopped: ended_by(|host| host.systemd.admin_stops(PAUSE), "closed too early");
    puma_is_started: ended_by(|host| host.systemd.admin_starts(PUMA), "gitlab-puma.service was \
                                                                       started");
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
        assert_back_and_next_run(&host, &[]).await;
    };
    a_step_that_hangs_is_ended_by_the_deadline: async {
        let host = with_max_downtime(8).await;
        host.takes(&step("window"), 3600.0);
        let record = host.run().await;
        assert!(why(&record).contains("max-downtime"), "{}", why(&record));
        let lasted = record.finished.unwrap().duration_since(record.started);
        assert!(lasted.as_secs() < 20, "{lasted}");
        host.takes(&step("window"), 1.0);
        assert_back_and_next_run(&host, &[]).await;
    };
    a_deadline_holds_although_its_timer_is_restarted: async {
        let host = with_max_downtime(8).await;
        host.takes(&step("window"), 3600.0);
        host.begin();
        host.wait_until_activating(&step("window")).await;
        // The effect of a daemon-reload.
        host.systemd.admin_stops("gitlab-backup-deadline.timer");
        let record = host.end().await;
        assert!(why(&record).contains("max-downtime"), "{}", why(&record));
        let lasted = record.finished.unwrap().duration_since(record.started);
        assert!(lasted.as_secs() < 20, "{lasted}");
        host.assert_back(&[]);
    };
    a_step_that_ignores_sigterm_is_killed: async {
        let host = with_max_downtime(8).await;
        host.takes(&step("window"), 3600.0);
        host.systemd.script(&step("window"), |script| script.stops_in = None);
        let record = host.run().await;
        assert!(!is_complete(&record));
        host.assert_back(&[]);
    };
    a_stop_that_hangs_is_ended_by_the_deadline_and_a_kill: async {
        let host = with_max_downtime(8).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = None);
        host.systemd.file(SIDEKIQ, |file| file.stop_timeout = None);
        let record = host.run().await;
        assert!(!is_complete(&record));
        host.wait_until(|host| host.systemd.is_active(SIDEKIQ)).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(Duration::ZERO));
        assert_back_and_next_run(&host, &[]).await;
    };
    a_stop_that_hangs_is_killed_although_the_executor_was_killed: async {
        let host = with_max_downtime(8).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = None);
        host.systemd.file(SIDEKIQ, |file| file.stop_timeout = None);
        host.begin();
        host.wait_until(|host| host.systemd.sub(SIDEKIQ) == "stop-sigterm").await;
        host.systemd.kills(RUN);
        host.end().await;
        host.wait_until(|host| host.systemd.is_active(SIDEKIQ)).await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(Duration::ZERO));
        assert_back_and_next_run(&host, &[]).await;
    };
    a_deadline_of_an_earlier_window_does_not_end_this_one: async {
        let host = with_max_downtime(30).await;
        let never = Some("ConditionPathExists=/nowhere".to_owned());
        host.systemd.script(PAUSE, |script| script.condition = never);
        assert!(!is_complete(&host.run().await));
        assert!(host.systemd.is_active("gitlab-backup-deadline.timer"));
        host.systemd.script(PAUSE, |script| script.condition = None);
        // Longer than what is left of the earlier deadline.
        host.takes(&step("window"), 27.0);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
    };
    a_window_that_cannot_open_leaves_gitlab_alone: async {
        let host = with_steps().await;
        host.systemd.script(PAUSE, |script| script.condition = Some("ConditionPathExists=/nowhere".into()));
        let puma = host.systemd.started(PUMA);
        let record = host.run().await;
        assert!(!is_complete(&record));
        host.assert_back(&[]);
        assert!(host.systemd.started(PUMA) <= puma + 1);
    };
}
