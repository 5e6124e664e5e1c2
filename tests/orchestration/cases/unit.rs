//! Units of the run fail, are killed, or do not run.

use super::*;

/// A unit outside of the window is killed while it runs.
async fn killed(unit: &'static str, complete: bool) {
    let host = Host::new("").await;
    host.takes(unit, 2.0);
    host.begin();
    host.wait_until_activating(unit).await;
    host.systemd.kills(unit);
    let record = host.end().await;
    assert_eq!(is_complete(&record), complete, "{}", why(&record));
    assert_back_and_next_run(&host, &[]).await;
}

/// The starts of a unit end with these statuses.
async fn fails(unit: &'static str, ends: &[i32], complete: bool) {
    let host = Host::new("").await;
    host.ends_with(unit, ends);
    let record = host.run().await;
    assert_eq!(is_complete(&record), complete, "{}", why(&record));
    if !complete {
        assert_eq!(
            record.failure.as_ref().unwrap().unit.as_deref(),
            Some(unit),
            "{}",
            why(&record)
        );
    }
    assert_back_and_next_run(&host, &[]).await;
}

/// The condition of a unit is not met: the run fails with that reason.
async fn has_unmet_condition(unit: &'static str) {
    let host = Host::new("").await;
    host.systemd
        .script(unit, |script| script.condition = Some("ConditionPathExists=/nowhere".into()));
    let record = host.run().await;
    assert!(!is_complete(&record));
    assert!(why(&record).contains("ConditionPathExists=/nowhere"), "{}", why(&record));
    host.assert_back(&[]);
    host.systemd.script(unit, |script| script.condition = None);
    assert_back_and_next_run(&host, &[]).await;
}

const PREFLIGHT: &str = "gitlab-backup-preflight.service";
const PRESYNC: &str = "gitlab-backup-presync.service";
const POSTGRESQL: &str = "gitlab-backup-postgresql.service";
const FILES: &str = "gitlab-backup-files.service";
const MANIFEST: &str = "gitlab-backup-manifest.service";

cases! {
    preflight_is_killed: killed(PREFLIGHT, false);
    preflight_of_postgresql_is_killed: killed("gitlab-backup-preflight-postgresql.service", false);
    fsplan_is_killed: killed("gitlab-backup-fsplan.service", false);
    the_dump_is_killed_and_tried_again: killed(POSTGRESQL, true);
    the_files_are_killed_and_tried_again: killed(FILES, true);
    the_manifest_is_killed_and_tried_again: killed(MANIFEST, true);
    preflight_fails_before_gitlab_is_touched: async {
        let host = Host::new("").await;
        host.ends_with(PREFLIGHT, &[1]);
        let record = host.run().await;
        assert!(why(&record).contains("preflight"), "{}", why(&record));
        assert_eq!(host.systemd.started(PUMA), 1);
        assert_back_and_next_run(&host, &[]).await;
    };
    presync_fails_once: fails(PRESYNC, &[1], true);
    the_dump_fails_twice: fails(POSTGRESQL, &[1, 1], true);
    the_dump_fails_for_good: fails(POSTGRESQL, &[1, 1, 1, 1], false);
    the_files_fail_once: fails(FILES, &[1], true);
    the_files_fail_for_good: fails(FILES, &[1, 1, 1, 1], false);
    the_manifest_fails_once: fails(MANIFEST, &[1], true);
    the_manifest_fails_for_good: fails(MANIFEST, &[1, 1, 1, 1], false);
    dump_and_files_fail_once: async {
        let host = Host::new("").await;
        host.ends_with(POSTGRESQL, &[1]);
        host.ends_with(FILES, &[1]);
        let record = host.run().await;
        assert!(is_complete(&record), "{}", why(&record));
        // The restart of one also starts the other, which it requires.
        assert_eq!((host.systemd.started(POSTGRESQL), host.systemd.started(FILES)), (3, 2));
        assert_back_and_next_run(&host, &[]).await;
    };
    a_dump_of_two_hours_is_waited_for: async {
        let host = Host::new("").await;
        host.patience.set(std::time::Duration::from_secs(3 * 3600));
        host.takes(POSTGRESQL, 7200.0);
        assert!(is_complete(&host.run().await));
    };
    a_dump_that_hangs_runs_out_of_time: async {
        let host = Host::new("").await;
        host.takes(POSTGRESQL, 1000.0);
        host.systemd.file(POSTGRESQL, |file| file.start_timeout = Some(std::time::Duration::from_secs(100)));
        let record = host.run().await;
        assert!(why(&record).contains("ran out of time"), "{}", why(&record));
        host.assert_back(&[]);
    };
    the_manifest_never_runs: has_unmet_condition(MANIFEST);
    the_files_never_run: has_unmet_condition(FILES);
    the_files_in_the_window_never_run: has_unmet_condition("gitlab-backup-files-live.service");
    fsplan_never_runs: has_unmet_condition("gitlab-backup-fsplan.service");
    the_snapshot_of_postgresql_ends_with_the_dump: async {
        let host = Host::new("").await;
        host.takes(FILES, 60.0);
        host.begin();
        host.wait_until_activating(FILES).await;
        host.wait_until(|host| !host.systemd.is_active("gitlab-backup-pgsnapshot.service")).await;
        assert_eq!(host.systemd.sub(FILES), "start");
        assert!(is_complete(&host.end().await));
    };
    a_step_that_fails_after_the_manifest_does_not_fail_the_backup: async {
        let host = with_steps().await;
        host.ends_with(&step("finish"), &[1]);
        let record = host.run().await;
        assert!(is_complete(&record));
        assert!(why(&record).contains("failed"), "{}", why(&record));
    };
}
