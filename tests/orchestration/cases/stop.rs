//! An admin stops, starts or restarts units of GitLab during a run: a stopped unit stays down, a
//! restarted one does not.

use super::*;

/// `how` happens in the window: the run is complete, and all units except `down` are up.
async fn in_the_window(how: fn(&Host), down: &[&str]) {
    let host = in_stage("window").await;
    // The executor needs a moment to mark the units that are down.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    how(&host);
    let record = host.end().await;
    assert!(is_complete(&record), "{}", why(&record));
    host.assert_back(down);
}

/// `how` happens while Puma is starting and the others run again.
async fn while_it_returns(how: fn(&Host), down: &[&str]) {
    let host = in_stage("window").await;
    host.takes(PUMA, 8.0);
    host.wait_until(|host| host.systemd.is_active(SIDEKIQ) && host.systemd.sub(PUMA) == "start")
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    how(&host);
    host.end().await;
    host.assert_back(down);
}

/// These units are stopped before the run, and stay down.
async fn before(down: &[&'static str]) {
    let host = Host::new("").await;
    for unit in down {
        host.systemd.admin_stops(unit);
    }
    host.wait_until(|host| down.iter().all(|unit| !host.systemd.is_active(unit))).await;
    let all: Vec<&str> = ALL.into_iter().filter(|unit| !host.systemd.is_active(unit)).collect();
    let record = host.run().await;
    assert!(is_complete(&record), "{}", why(&record));
    host.assert_back(&all);
    assert!(is_complete(&host.run().await));
    host.assert_back(&all);
}

cases! {
    sidekiq_is_stopped_in_the_window: in_the_window(|host| host.systemd.admin_stops(SIDEKIQ), &[SIDEKIQ]);
    puma_is_stopped_in_the_window: in_the_window(|host| host.systemd.admin_stops(PUMA), &[PUMA]);
    all_is_stopped_in_the_window: in_the_window(|host| host.systemd.admin_stops(GITLAB), &ALL);
    two_are_stopped_in_the_window: in_the_window(|host| {
        host.systemd.admin_stops(MAILROOM);
        host.systemd.admin_stops(SIDEKIQ);
    }, &[SIDEKIQ, MAILROOM]);
    sidekiq_is_tried_to_restart_in_the_window: in_the_window(|host| host.systemd.admin_try_restarts(SIDEKIQ), &[]);
    all_is_tried_to_restart_in_the_window: in_the_window(|host| host.systemd.admin_try_restarts(GITLAB), &[]);
    sidekiq_is_stopped_while_puma_starts: while_it_returns(|host| host.systemd.admin_stops(SIDEKIQ), &[SIDEKIQ]);
    puma_is_stopped_while_it_starts: while_it_returns(|host| host.systemd.admin_stops(PUMA), &[PUMA]);
    all_is_stopped_while_puma_starts: while_it_returns(|host| host.systemd.admin_stops(GITLAB), &ALL);
    sidekiq_is_restarted_while_puma_starts: while_it_returns(|host| host.systemd.admin_restarts(SIDEKIQ), &[]);
    puma_is_restarted_while_it_starts: while_it_returns(|host| host.systemd.admin_restarts(PUMA), &[]);
    workhorse_is_stopped_while_its_start_is_queued: while_it_returns(|host| host.systemd.admin_stops(WORKHORSE), &[WORKHORSE]);
    sidekiq_was_down_before: before(&[SIDEKIQ]);
    sidekiq_and_mailroom_were_down_before: before(&[SIDEKIQ, MAILROOM]);
    puma_was_down_before: before(&[PUMA]);
    all_was_down_before: before(&[GITLAB]);
    a_unit_that_is_killed_while_it_stops_is_a_warning: async {
        let host = Host::new("").await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = None);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        let killed: Vec<_> =
            record.warnings.iter().filter(|warning| warning.contains("systemd ended it by force")).collect();
        assert!(killed.len() == 1 && killed[0].starts_with(SIDEKIQ), "{:?}", record.warnings);
        host.assert_back(&[]);
        // A later run is judged by its own stop.
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(std::time::Duration::ZERO));
        let record = host.run().await;
        assert!(!record.warnings.iter().any(|warning| warning.contains("by force")), "{:?}", record.warnings);
    };
    a_stop_that_takes_long_while_puma_starts: async {
        let host = in_stage("window").await;
        host.takes(PUMA, 8.0);
        host.wait_until(|host| host.systemd.is_active(SIDEKIQ) && host.systemd.sub(PUMA) == "start").await;
        host.systemd.script(SIDEKIQ, |script| script.stops_in = Some(std::time::Duration::from_secs(5)));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        host.systemd.admin_stops(SIDEKIQ);
        host.end().await;
        host.assert_back(&[SIDEKIQ]);
    };
    sidekiq_is_stopped_in_the_window_and_started_again: async {
        let host = in_stage("window").await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        host.systemd.admin_stops(SIDEKIQ);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        host.systemd.admin_starts(SIDEKIQ);
        let record = host.end().await;
        assert!(why(&record).contains("gitlab-sidekiq.service was started"), "{}", why(&record));
    };
    sidekiq_is_stopped_after_the_run: async {
        let host = in_stage("store").await;
        host.systemd.admin_stops(SIDEKIQ);
        assert!(is_complete(&host.end().await));
        host.assert_back(&[SIDEKIQ]);
    };
}
