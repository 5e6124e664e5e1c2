//! GitLab is held still instead of stopped.

use std::time::Duration;

use gitlab_backup::runs::{How, Quiesced, Record};
use gitlab_backup::systemd::ActiveState;
use tokio::time::Instant;

use super::*;
use crate::systemd::program;

const HOLDS: &str = "[gitlab]\nquiesce = \"hold\"\n";
const FILES_LIVE: &str = "gitlab-backup-files-live.service";

/// A host that holds GitLab, with a web server.
async fn with_front(lines: &str) -> Host {
    let host = Host::new(&format!("{HOLDS}{lines}")).await;
    host.adds("nginx.service", "Type=notify");
    host
}

/// The same, while GitLab is held.
async fn in_hold(lines: &str) -> Host {
    let host = with_front(lines).await;
    host.takes(FILES_LIVE, 3.0);
    host.begin();
    host.wait_until_activating(FILES_LIVE).await;
    assert!(!host.kernel.held().is_empty(), "nothing is held");
    host
}

fn quiesced(record: &Record) -> Quiesced {
    record.quiesced.unwrap_or_else(|| panic!("{record:?}"))
}

/// Asserts that the web was never stopped, and that nothing is held.
fn assert_never_stopped(host: &Host) {
    for unit in [PUMA, WORKHORSE, GITALY] {
        assert_eq!(host.systemd.started(unit), 1, "{unit} was stopped");
    }
    assert_nothing_held(host);
}

fn assert_nothing_held(host: &Host) {
    assert_eq!(host.kernel.held(), Vec::<String>::new());
    assert!(!host.at(gitlab_backup::paths::HELD).exists(), "there is still a record");
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

cases! {
    only_what_works_without_users_is_stopped: async {
        let host = with_front("").await;
        host.takes(FILES_LIVE, 1.0);
        host.begin();
        host.wait_until_activating(FILES_LIVE).await;
        let mut held = host.kernel.held();
        held.sort();
        assert_eq!(held, [GITALY, PUMA, WORKHORSE]);
        assert!(host.systemd.active(SIDEKIQ).is_down() && host.systemd.active(MAILROOM).is_down());
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(record.warnings, Vec::<String>::new());
        let quiesced = quiesced(&record);
        assert_eq!((quiesced.how, quiesced.search.front, quiesced.search.vain), (How::Held, false, 0));
        assert!(quiesced.background.is_some_and(|waited| waited > 1.0), "{quiesced:?}");
        let held = record.downtime.unwrap().total();
        assert!((1.0..2.0).contains(&held), "{held}");
        assert_eq!(host.systemd.started(SIDEKIQ), 2);
        assert_never_stopped(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    a_moment_at_which_nothing_is_in_progress_is_waited_for: async {
        let host = with_front("").await;
        host.begin();
        host.wait_until_activating(HOLD).await;
        host.kernel.is_busy(in_seconds(2), None);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(!quiesced(&record).search.front, "the front was held");
        assert!(!host.kernel.log().contains(&"nginx.service".to_owned()));
        assert!(record.downtime.unwrap().stop < 0.2, "{record:?}");
        assert_never_stopped(&host);
    };

    the_front_is_held_if_there_is_always_a_request: async {
        let host = with_front("").await;
        host.kernel.is_busy(in_seconds(3600), Some("nginx.service"));
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(quiesced(&record).search.front && quiesced(&record).how == How::Held);
        assert_eq!(host.kernel.log()[0], "nginx.service");
        assert_never_stopped(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    what_is_half_way_is_found_after_the_freeze_and_let_go: async {
        let host = with_front("").await;
        host.kernel.finds_half_way(2);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!((quiesced(&record).how, quiesced(&record).search.vain), (How::Held, 2));
        assert_never_stopped(&host);
    };

    gitlab_is_stopped_if_there_is_always_something_in_progress: async {
        let host = with_front("").await;
        host.kernel.is_busy(in_seconds(3600), None);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(quiesced(&record).how, How::Stopped);
        assert!((2.0..=5.0).contains(&quiesced(&record).search.waited), "{record:?}");
        assert!(record.warnings.iter().any(|w| w.contains("always something in progress")), "{record:?}");
        assert_eq!(host.systemd.started(PUMA), 2);
        assert_nothing_held(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    or_the_run_fails_if_it_must_not_be_stopped: async {
        let host = with_front("hold-fallback = \"fail\"\n").await;
        host.kernel.is_busy(in_seconds(3600), None);
        let record = host.run().await;
        assert!(why(&record).contains("always something in progress"), "{}", why(&record));
        assert_never_stopped(&host);
        host.assert_back(&[]);
    };

    auto_stops_without_a_warning_what_cannot_be_held: async {
        let host = Host::new("[gitlab]\nquiesce = \"auto\"\n[files]\ncommand = [\"/bin/true\"]\n").await;
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!((quiesced(&record).how, record.warnings.len()), (How::Stopped, 0));
        let host = with_front("").await;
        let record = host.run().await;
        assert_eq!((quiesced(&record).how, record.warnings.len()), (How::Held, 0));
    };

    a_puma_without_workers_is_stopped: async {
        let host = with_front("").await;
        host.kernel.is_single();
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(record.warnings.iter().any(|warning| warning.contains("cluster mode")), "{record:?}");
        assert_eq!(host.systemd.started(PUMA), 2);
        assert_nothing_held(&host);
    };

    the_listener_of_an_ssh_server_is_stopped_alone: async {
        let host = with_front("").await;
        host.adds("ssh.service", "Type=notify");
        host.wait_until(|host| host.systemd.is_active("ssh.service")).await;
        let pid = host.systemd.main_pid("ssh.service");
        host.kernel.is_busy(in_seconds(3600), Some("nginx.service"));
        host.takes(FILES_LIVE, 1.0);
        host.begin();
        host.wait_until_activating(FILES_LIVE).await;
        let held = host.kernel.held();
        assert!(held.contains(&format!("process {pid}")), "{held:?} {:?}", host.end().await);
        assert!(is_complete(&host.end().await));
        assert_never_stopped(&host);
    };

    the_capture_takes_longer_than_users_may_wait: async {
        let host = with_front("max-hold = \"2s\"\n").await;
        host.takes(FILES_LIVE, 4.0);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(quiesced(&record).how, How::Stopped);
        assert!(record.warnings.iter().any(|warning| warning.contains("max-hold")), "{record:?}");
        assert_nothing_held(&host);
        host.assert_back(&[]);
        // The next run knows better.
        let record = host.run().await;
        assert!(record.warnings.iter().any(|warning| warning.contains("will probably take")), "{record:?}");
        assert_eq!(quiesced(&record).search.waited, 0.0);
    };

    the_holder_is_killed: async {
        let host = in_hold("").await;
        host.systemd.kills(HOLD);
        host.wait_until(|host| host.kernel.held().is_empty()).await;
        assert_eq!(host.systemd.started(PUMA), 1);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(quiesced(&record).how, How::Stopped);
        assert_nothing_held(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    the_holder_is_killed_while_it_searches: async {
        let host = with_front("").await;
        host.kernel.is_busy(in_seconds(9), None);
        host.begin();
        host.wait_until(|host| host.kernel.log().contains(&"nginx.service".to_owned())).await;
        host.systemd.kills(HOLD);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_nothing_held(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    the_executor_is_killed: async {
        let host = in_hold("").await;
        host.systemd.kills(RUN);
        host.wait_until(|host| host.kernel.held().is_empty()).await;
        let record = host.end().await;
        assert!(!is_complete(&record));
        assert_never_stopped(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    nothing_lets_go_but_resume: async {
        let host = in_hold("").await;
        host.systemd.script(HOLD, |script| script.stop_post = Some(program(|_| async { 1 })));
        host.systemd.kills(RUN);
        host.end().await;
        assert_never_stopped(&host);
        host.assert_back(&[]);
    };

    an_admin_restarts_puma: async {
        let host = in_hold("").await;
        host.systemd.admin_restarts(PUMA);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(quiesced(&record).how, How::Stopped);
        assert_nothing_held(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    an_admin_stops_sidekiq: async {
        let host = in_hold("").await;
        host.systemd.admin_stops(SIDEKIQ);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_never_stopped(&host);
        assert_back_and_next_run(&host, &[SIDEKIQ]).await;
    };

    an_admin_starts_sidekiq: async {
        let host = in_hold("").await;
        host.systemd.admin_starts(SIDEKIQ);
        let record = host.end().await;
        assert!(why(&record).contains("gitlab-sidekiq.service was started"), "{}", why(&record));
        assert_never_stopped(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    puma_dies: async {
        let host = in_hold("").await;
        host.systemd.kills(PUMA);
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.wait_until(|host| host.systemd.is_active(PUMA)).await;
        assert_nothing_held(&host);
        assert_back_and_next_run(&host, &[]).await;
    };

    gitlab_is_down_already: async {
        let host = with_front("").await;
        host.systemd.admin_stops(GITLAB);
        host.wait_until(|host| ALL.iter().all(|unit| host.systemd.active(unit) == ActiveState::Inactive)).await;
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.assert_back(&ALL);
    };
}
