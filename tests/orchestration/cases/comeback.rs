//! GitLab is started again, whatever its units do.

use std::time::Duration;

use super::*;

/// The run begins while Puma is slow to start after `how`: it waits, and is complete.
async fn meets(how: fn(&Host)) {
    let host = Host::new("").await;
    host.takes(PUMA, 20.0);
    how(&host);
    let record = host.run().await;
    assert!(is_complete(&record), "{}", why(&record));
    host.assert_back(&[]);
}

fn restart(host: &Host) {
    host.systemd.admin_restarts(PUMA);
}

cases! {
    a_run_meets_a_restart: meets(restart);
    a_run_meets_a_restart_of_all: meets(|host| host.systemd.admin_restarts(GITLAB));
    a_run_meets_a_crash: meets(|host| host.systemd.kills(PUMA));
    a_run_meets_an_upgrade: meets(|host| {
        for unit in [GITALY, PUMA, SIDEKIQ, WORKHORSE] {
            host.systemd.admin_restarts(unit);
        }
    });
    a_run_meets_starts_that_are_queued: async {
        let host = Host::new("").await;
        host.takes(PUMA, 20.0);
        host.systemd.admin_stops(WORKHORSE);
        host.systemd.admin_stops(PUMA);
        host.wait_until(|host| !host.systemd.is_active(PUMA)).await;
        host.systemd.admin_starts(WORKHORSE);
        host.systemd.admin_starts(PUMA);
        assert!(is_complete(&host.run().await));
        host.assert_back(&[]);
    };
    a_restart_at_any_time: async {
        for delay in 0..40 {
            let host = Host::new("").await;
            host.takes(PUMA, 4.0);
            host.begin();
            tokio::time::sleep(Duration::from_millis(50 * delay)).await;
            restart(&host);
            host.end().await;
            host.wait_until(|host| host.systemd.is_active(PUMA)).await;
            host.assert_back(&[]);
        }
    };
    a_kill_of_the_executor_at_any_time: async {
        for delay in 0..60 {
            let host = Host::new("").await;
            host.begin();
            tokio::time::sleep(Duration::from_millis(37 * delay)).await;
            host.systemd.kills(RUN);
            host.end().await;
            host.assert_back(&[]);
            host.assert_clean();
        }
    };
    a_start_of_sidekiq_at_any_time: async {
        for delay in 0..40 {
            let host = Host::new("").await;
            host.begin();
            tokio::time::sleep(Duration::from_millis(53 * delay)).await;
            host.systemd.admin_starts(SIDEKIQ);
            host.end().await;
            host.assert_back(&[]);
        }
    };
    a_slow_start_of_a_unit_that_was_down_at_any_time: async {
        for delay in 0..60 {
            let host = Host::new("").await;
            host.systemd.admin_stops(SIDEKIQ);
            host.wait_until(|host| !host.systemd.is_active(SIDEKIQ)).await;
            host.takes(SIDEKIQ, 3.0);
            host.begin();
            tokio::time::sleep(Duration::from_millis(29 * delay)).await;
            host.systemd.admin_starts(SIDEKIQ);
            host.end().await;
            host.wait_until(|host| host.systemd.is_active(SIDEKIQ)).await;
            host.assert_back(&[]);
        }
    };
    a_start_that_takes_too_long_leaves_gitlab_alone: async {
        let host = Host::new("[gitlab]\nsettle = \"1s\"\n").await;
        host.takes(PUMA, 20.0);
        restart(&host);
        let record = host.run().await;
        assert!(why(&record).contains("is being started or stopped"), "{}", why(&record));
        host.wait_until(|host| host.systemd.is_active(PUMA)).await;
        host.assert_back(&[]);
    };
    a_slow_puma_is_waited_for: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 100.0);
        let record = host.end().await;
        assert!(is_complete(&record));
        assert!(record.downtime.unwrap().start > 100.0);
        host.assert_back(&[]);
    };
    a_puma_that_is_slower_than_the_run_waits: async {
        let host = in_stage("window").await;
        host.systemd.file(PUMA, |file| file.start_timeout = None);
        host.takes(PUMA, 400.0);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(record.downtime.is_none() && record.downtime_longer_than.unwrap() > 300.0);
        host.assert_back(&[]);
    };
    another_server_answers_while_puma_crashes: async {
        let host = in_stage("window").await;
        host.other_server.set(Some(Duration::from_secs(2)));
        host.wait_until(|host| ALL.iter().all(|unit| host.systemd.is_active(unit))).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        host.takes(PUMA, 20.0);
        host.systemd.kills(PUMA);
        let record = host.end().await;
        host.assert_back(&[]);
        assert!(record.downtime.unwrap().start > 20.0, "{:?}", record.downtime);
    };
    puma_fails_three_times: async {
        let host = in_stage("window").await;
        host.ends_with(PUMA, &[1, 1, 1]);
        assert!(is_complete(&host.end().await));
        host.assert_back(&[]);
    };
    puma_times_out_once: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 200.0);
        host.wait_until(|host| host.systemd.sub(PUMA) == "start").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        host.takes(PUMA, 5.0);
        assert!(is_complete(&host.end().await));
        host.assert_back(&[]);
    };
    starts_by_resume_do_not_count_for_the_start_limit: async {
        let host = Host::new("").await;
        for _ in 0..7 {
            let record = host.run().await;
            assert!(is_complete(&record), "{}", why(&record));
            assert!(record.downtime.is_some_and(|downtime| downtime.total() < 30.0));
            host.assert_back(&[]);
        }
    };
    a_unit_is_gone: async {
        let host = in_stage("window").await;
        host.systemd.remove_file(MAILROOM);
        assert!(is_complete(&host.end().await));
        host.assert_back(&[MAILROOM]);
    };
    a_unit_has_a_condition_that_is_not_met: async {
        let host = Host::new("").await;
        host.systemd.script(SIDEKIQ, |script| script.condition = Some("ConditionPathExists=/nowhere".into()));
        assert!(is_complete(&host.run().await));
        host.assert_back(&[SIDEKIQ]);
        assert!(is_complete(&host.run().await));
    };
    a_unit_ends_by_itself_each_time: async {
        let host = Host::new("").await;
        host.systemd.script(MAILROOM, |script| script.main = crate::systemd::program(|_| async { 0 }));
        host.systemd.file(MAILROOM, |file| {
            (file.restart, file.kind) = ((false, false), crate::systemd::Type::Oneshot);
        });
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.assert_back(&[MAILROOM]);
    };
    resume_is_killed: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 10.0);
        host.wait_until(|host| host.systemd.sub(RESUME) == "start").await;
        host.systemd.kills(RESUME);
        assert!(is_complete(&host.end().await));
        host.assert_back(&[]);
    };
    an_earlier_run_has_left_gitlab_paused: async {
        let host = Host::new("").await;
        host.systemd.admin_stops(SIDEKIQ);
        host.wait_until(|host| !host.systemd.is_active(SIDEKIQ)).await;
        let paused = format!(r#"[{{"unit":"{SIDEKIQ}","left_down":[]}}]"#);
        std::fs::write(host.at(gitlab_backup::paths::PAUSED), paused).unwrap();
        assert!(is_complete(&host.run().await));
        host.assert_back(&[]);
    };
    a_unit_that_was_down_is_not_started_by_its_dependents: async {
        let host = Host::new("").await;
        host.systemd.admin_stops(PUMA);
        host.wait_until(|host| !host.systemd.is_active(PUMA)).await;
        // Workhorse has Wants= for Puma, and runs without it.
        host.systemd.admin_starts(WORKHORSE);
        host.wait_until(|host| host.systemd.is_active(PUMA)).await;
        host.systemd.admin_stops(PUMA);
        host.wait_until(|host| !host.systemd.is_active(PUMA)).await;
        assert!(host.systemd.is_active(WORKHORSE));
        assert!(is_complete(&host.run().await));
        host.assert_back(&[PUMA]);
    };
}
