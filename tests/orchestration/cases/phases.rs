//! GitLab is stopped in phases: Gitaly ends what is in progress while its hooks are answered.

use std::time::Duration;

use gitlab_backup::systemd::ActiveState;

use super::*;

/// A host whose Gitaly takes this long to end after SIGTERM; for ever, if none.
async fn with_gitaly(lines: &str, seconds: Option<u64>) -> Host {
    let host = Host::new(lines).await;
    host.systemd.script(GITALY, |script| script.stops_in = seconds.map(Duration::from_secs));
    host
}

/// The same, in the middle of the drain.
async fn in_drain(lines: &str, seconds: Option<u64>) -> Host {
    let host = with_gitaly(lines, seconds).await;
    host.begin();
    host.wait_until(|host| host.systemd.sub(DRAIN) == "stop-post").await;
    host
}

/// Whether the rest of GitLab runs.
fn the_rest_runs(host: &Host) -> bool {
    [PUMA, SIDEKIQ, WORKHORSE, MAILROOM].into_iter().all(|unit| host.systemd.is_active(unit))
}

/// Asserts that nothing but Gitaly was stopped.
fn assert_only_gitaly_ended(host: &Host) {
    for unit in [PUMA, SIDEKIQ, WORKHORSE, MAILROOM] {
        assert_eq!(host.systemd.started(unit), 1, "{unit} was stopped");
    }
}

cases! {
    gitaly_ends_while_the_rest_of_gitlab_runs: async {
        let host = with_gitaly("", Some(5)).await;
        host.systemd.script(PUMA, |script| script.stops_in = Some(Duration::from_secs(2)));
        host.begin();
        host.wait_until(|host| host.systemd.sub(DRAIN) == "stop-post").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(host.systemd.is_active(GITALY) && the_rest_runs(&host), "{}", host.busy_units());
        host.wait_until(|host| host.systemd.active(PUMA) == ActiveState::Deactivating).await;
        assert!(host.systemd.is_active(SIDEKIQ), "Sidekiq is stopped before Puma has ended");
        host.wait_until(|host| host.systemd.active(PUMA).is_down()).await;
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(host.systemd.started(GITALY), 2);
        assert_back_and_next_run(&host, &[]).await;
    };

    a_gitaly_that_systemd_would_restart_stays_down: async {
        let host = with_gitaly("", Some(5)).await;
        host.systemd.file(GITALY, |file| file.restart = (true, true));
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(host.systemd.started(GITALY), 2);
        host.assert_back(&[]);
    };

    a_gitaly_that_was_down_stays_down: async {
        let host = Host::new("").await;
        host.systemd.admin_stops(GITALY);
        host.wait_until(|host| host.systemd.active(GITALY).is_down()).await;
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_back_and_next_run(&host, &[GITALY]).await;
    };

    a_gitaly_that_does_not_end_is_stopped_and_a_warning: async {
        let host = with_gitaly("", None).await;
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(record.warnings.iter().any(|warning| warning.contains(GITALY)), "{record:?}");
        host.assert_back(&[]);
    };

    the_executor_is_killed_in_the_drain: async {
        let host = in_drain("", Some(5)).await;
        host.systemd.kills(RUN);
        let record = host.end().await;
        assert!(!is_complete(&record));
        host.wait_until(|host| host.systemd.is_active(GITALY)).await;
        assert_only_gitaly_ended(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    the_executor_is_killed_in_a_drain_of_a_gitaly_that_is_not_restarted: async {
        let host = in_drain("", Some(5)).await;
        host.systemd.file(GITALY, |file| file.restart = (false, false));
        host.systemd.kills(RUN);
        host.end().await;
        assert_eq!(host.systemd.started(GITALY), 2);
        assert_only_gitaly_ended(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    the_executor_is_killed_in_the_drain_of_a_gitaly_that_does_not_end: async {
        let host = in_drain("", None).await;
        host.systemd.kills(RUN);
        host.end().await;
        assert_only_gitaly_ended(&host);
        host.assert_back(&[]);
    };

    the_drain_exceeds_the_deadline: async {
        let host = in_drain("[gitlab]\nmax-downtime = \"3s\"\n", Some(20)).await;
        let record = host.end().await;
        assert!(why(&record).contains("max-downtime"), "{}", why(&record));
        assert_only_gitaly_ended(&host);
        host.assert_back(&[]);
    };

    the_drain_is_killed: async {
        let host = in_drain("", Some(5)).await;
        host.systemd.kills(DRAIN);
        let record = host.end().await;
        assert!(!is_complete(&record));
        assert_back_and_next_run(&host, &[]).await;
    };

    a_drain_that_hangs_does_not_keep_gitlab_down: async {
        let host = Host::new("").await;
        host.systemd.script(DRAIN, |script| {
            script.stop_post = Some(crate::systemd::program(|_| std::future::pending()));
        });
        host.begin();
        host.wait_until(|host| host.systemd.sub(DRAIN) == "stop-post").await;
        host.systemd.kills(RUN);
        host.end().await;
        assert_only_gitaly_ended(&host);
        host.assert_back(&[]);
    };

    an_admin_starts_gitaly_in_the_drain: async {
        let host = in_drain("", Some(5)).await;
        host.systemd.admin_starts(GITALY);
        let record = host.end().await;
        assert!(why(&record).contains("gitlab-gitaly.service was started"), "{}", why(&record));
        assert_back_and_next_run(&host, &[]).await;
    };

    the_door_is_shut_first_and_opened_last: async {
        let host = with_gitaly("[gitlab]\ndoor = [\"nginx.service\"]\n", Some(3)).await;
        host.adds("nginx.service", "Type=notify");
        host.systemd.script("nginx.service", |script| script.stops_in = Some(Duration::from_secs(2)));
        host.takes(PUMA, 8.0);
        host.begin();
        host.wait_until(|host| host.systemd.active("nginx.service").is_down()).await;
        assert!(host.systemd.is_active(GITALY), "Gitaly ended before the door was shut");
        host.wait_until(|host| host.systemd.active(PUMA).is_down()).await;
        host.wait_until(|host| host.systemd.active("nginx.service") == ActiveState::Activating).await;
        assert!(host.systemd.is_active(GITALY) && the_rest_runs(&host), "{}", host.busy_units());
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(host.systemd.is_active("nginx.service"));
    };
}
