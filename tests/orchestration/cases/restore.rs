//! A restore: GitLab returns with the old or with the restored data, and never with half of each.

use super::*;
use crate::restore::*;
use gitlab_backup::paths;
use gitlab_backup::runs::restore::State;

/// A host with a Redis whose unit is known without asking its server.
async fn host() -> Host {
    let lines = "[[redis]]\nname = \"redis\"\nurl = \"redis://127.0.0.1:6379\"\nunit \
                 = \"redis-server.service\"\n";
    let host = Host::new(lines).await;
    host.adds("redis-server.service", "Type=notify");
    host
}

/// A host whose restore has reached `unit`.
async fn at(unit: &str) -> Host {
    let host = host().await;
    host.takes(unit, 3.0);
    host.begin_restore();
    host.wait_until_activating(unit).await;
    host
}

/// Asserts that the old data is in place and GitLab is back, and that the next restore is complete.
async fn old_and_next(host: &Host) {
    assert_eq!(host.replaced(), None, "a journal is left");
    host.assert_back(&[]);
    host.assert_clean();
    let record = host.restore().await;
    assert!(is_complete(&record), "the next restore: {}", why(&record));
    host.assert_back(&[]);
}

async fn fails(unit: &'static str) {
    let host = host().await;
    host.ends_with(unit, &[1]);
    let record = host.restore().await;
    assert!(!is_complete(&record));
    let failure = record.failure.expect("a reason");
    assert_eq!(failure.unit.as_deref(), Some(unit), "{}", failure.reason);
    old_and_next(&host).await;
}

async fn ends_in(unit: &'static str, how: fn(&Host)) {
    let host = at(unit).await;
    how(&host);
    let record = host.restored().await;
    assert!(!is_complete(&record));
    assert!(record.finished.is_some());
    old_and_next(&host).await;
}

fn kill(host: &Host) {
    host.systemd.kills(crate::restore::RUN);
}

fn stop(host: &Host) {
    host.systemd.admin_stops(crate::restore::TARGET);
}

/// A host whose restore was killed during the replacement.
async fn half_way() -> Host {
    let host = at(SWITCH).await;
    host.wait_until(|host| host.replaced() == Some(State::Switching)).await;
    host.systemd.kills(SWITCH);
    let record = host.restored().await;
    assert!(!is_complete(&record));
    assert_eq!(host.replaced(), Some(State::Switching));
    host
}

cases! {
    complete: async {
        let host = host().await;
        let record = host.restore().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(host.replaced(), None, "the old is left");
        host.assert_back(&[]);
        host.assert_clean();
    };
    gitlab_is_up_while_it_loads: async {
        let host = at(POSTGRESQL).await;
        host.assert_running();
        assert_eq!(host.systemd.started(crate::restore::WINDOW), 0);
        host.wait_until_activating(SWITCH).await;
        assert!(!host.systemd.is_active(PUMA) && !host.systemd.is_active(GITALY));
        let record = host.restored().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(record.downtime.unwrap().total() < 1.0, "{record:?}");
        for step in [UNDO, POSTGRESQL, SWITCH] {
            assert_eq!(host.systemd.started(step), 1, "{step}");
        }
        host.assert_back(&[]);
    };
    gitlab_is_down_while_it_loads_if_that_is_asked_for: async {
        let host = host().await;
        host.takes(POSTGRESQL, 3.0);
        host.begin_restore_stopped();
        host.wait_until_activating(POSTGRESQL).await;
        assert!(!host.systemd.is_active(PUMA) && !host.systemd.is_active(GITALY));
        let record = host.restored().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert!(record.downtime.unwrap().total() > 3.0, "{record:?}");
        host.assert_back(&[]);
    };
    loading_fails_while_gitlab_is_down: async {
        let host = host().await;
        host.ends_with(POSTGRESQL, &[1]);
        host.begin_restore_stopped();
        let record = host.restored().await;
        let failure = record.failure.expect("a reason");
        assert_eq!(failure.unit.as_deref(), Some(POSTGRESQL), "{}", failure.reason);
        old_and_next(&host).await;
    };
    loading_fails_and_gitlab_was_never_stopped: async {
        let host = host().await;
        host.ends_with(POSTGRESQL, &[1]);
        let record = host.restore().await;
        assert_eq!(record.failure.and_then(|failure| failure.unit).as_deref(), Some(POSTGRESQL));
        assert_eq!(host.systemd.started(PUMA), 1);
        old_and_next(&host).await;
    };
    a_gitlab_that_is_down_stays_down_meanwhile: async {
        let host = host().await;
        host.systemd.admin_stops(GITLAB);
        host.wait_until(|host| ALL.iter().all(|unit| host.systemd.active(unit).is_down())).await;
        let record = host.restore().await;
        assert!(is_complete(&record), "{}", why(&record));
        for unit in ALL {
            assert!(!host.systemd.is_active(unit), "{unit} was started");
        }
    };
    what_was_down_stays_down: async {
        let host = host().await;
        host.systemd.admin_stops(MAILROOM);
        host.wait_until(|host| !host.systemd.is_active(MAILROOM)).await;
        let record = host.restore().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.assert_back(&[MAILROOM]);
    };
    preflight_fails_and_gitlab_is_not_touched: async {
        let host = host().await;
        host.ends_with(PREFLIGHT, &[1]);
        let record = host.restore().await;
        assert_eq!(record.failure.and_then(|failure| failure.unit).as_deref(), Some(PREFLIGHT));
        assert_eq!(host.systemd.started(crate::restore::WINDOW), 0);
        assert_eq!(host.systemd.started(PUMA), 1);
        host.assert_back(&[]);
    };
    undo_fails: fails(UNDO);
    loading_fails: fails(POSTGRESQL);
    switch_fails_and_is_taken_back: fails(SWITCH);
    killed_in_preflight: ends_in(PREFLIGHT, kill);
    killed_while_it_loads: ends_in(POSTGRESQL, kill);
    stopped_while_it_loads: ends_in(POSTGRESQL, stop);
    half_way_gitlab_stays_down: async {
        let host = half_way().await;
        for unit in ALL {
            assert!(!host.systemd.is_active(unit), "{unit} runs with half a restore");
        }
        let record = host.run().await;
        assert!(why(&record).contains("half way"), "a backup of it: {}", why(&record));
        assert!(!host.systemd.is_active(PUMA));
        // The next restore first puts the old data back.
        let record = host.restore().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(host.replaced(), None);
        host.assert_back(&[]);
    };
    half_way_and_started_by_hand_it_is_asked_again: async {
        let host = half_way().await;
        host.systemd.admin_starts(RESUME);
        host.wait_until(|host| !host.systemd.busy().iter().any(|unit| unit == RESUME)).await;
        assert!(!host.systemd.is_active(PUMA), "resume started half a restore");
        assert!(host.paused().is_some(), "what ran before is forgotten");
    };
    killed_when_everything_is_in_place: async {
        let host = host().await;
        host.takes(PUMA, 30.0);
        host.begin_restore();
        host.wait_until(|host| host.replaced() == Some(State::Switched)).await;
        kill(&host);
        host.restored().await;
        host.assert_back(&[]);
        host.wait_until(|host| host.replaced().is_none()).await;
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.assert_back(&[]);
    };
    finish_fails_once: async {
        let host = host().await;
        host.ends_with(FINISH, &[1]);
        let record = host.restore().await;
        assert_eq!(host.replaced(), None, "{}", why(&record));
        host.assert_back(&[]);
    };
    nobody_asked: async {
        let host = host().await;
        host.systemd.admin_starts(crate::restore::TARGET);
        host.wait_until(|host| host.is_over()).await;
        assert_eq!(host.systemd.started(PREFLIGHT), 0);
        host.assert_back(&[]);
    };
    a_backup_is_running: async {
        let host = in_stage("store").await;
        host.begin_restore();
        host.wait_until(|host| host.systemd.started(crate::restore::RUN) == 1
            && !host.systemd.busy().iter().any(|unit| unit == crate::restore::RUN)).await;
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(host.systemd.started(PREFLIGHT), 0);
        host.assert_back(&[]);
    };
    asked_for_in_a_backups_window_it_leaves_that_alone: async {
        let host = in_stage("window").await;
        let environment = || std::fs::read_to_string(host.at(paths::ENVIRONMENT)).unwrap();
        let before = environment();
        host.begin_restore();
        let record = host.end().await;
        assert!(is_complete(&record), "{}", why(&record));
        assert_eq!(host.systemd.started(crate::restore::RUN), 1);
        assert_eq!(environment(), before, "the backup's steps were told of another run");
        host.assert_back(&[]);
    };
    a_restore_is_running: async {
        let host = at(POSTGRESQL).await;
        host.begin();
        let record = host.restored().await;
        assert!(is_complete(&record), "{}", why(&record));
        host.assert_back(&[]);
    };
}
