//! The list of all units. `rows/` describes each of them.

use crate::config::Stage;

/// Defines an enumeration of units, and `PLAIN`, its variants without fields in the order of a run.
/// Every variant is part of the plans that need it.
macro_rules! units {
    (
        $(#[$about:meta])*
        $kind:ident {
            $($(#[$plain_about:meta])* $plain:ident,)*
            $(; $($(#[$named_about:meta])* $named:ident($given:ty),)*)?
        }
    ) => {
        $(#[$about])*
        pub enum $kind {
            $($(#[$plain_about])* $plain,)*
            $($($(#[$named_about])* $named($given),)*)?
        }

        impl $kind {
            pub(super) const PLAIN: &[Self] = &[$(Self::$plain),*];
        }
    };
}

units! {
    /// A unit of this program.
    #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
    Unit {
        /// Starts the target on schedule.
        Timer,
        /// Started before the timers: keeps a changed calendar from starting runs for times before
        /// the change.
        Calendar,
        /// The entry: started by the timer and by admins.
        Target,
        /// The executor. Not `gitlab-backup.service`: NixOS and Arch have a unit of that name.
        Run,
        /// Bracket around the run: creates and removes the staging directory.
        Staging,
        /// Bracket around the run: silences the monitoring.
        Silence,
        /// Reports the start of a run.
        ReportStart,
        /// Step: synchronises the proxy units with their services.
        Proxies,
        /// Step: checks everything that can be checked before GitLab is stopped.
        Preflight,
        /// Step: the preflight checks that must run as PostgreSQL's OS user.
        PreflightPostgresql,
        /// Step: decides how each path is captured, and removes leftovers of a crash.
        FsPlan,
        /// Step: the first pass of the file backup, while GitLab is up.
        Presync,
        /// Step: waits until the silences have taken effect.
        Silenced,
        /// Bracket: its end starts GitLab again.
        Pause,
        /// Bracket: GitLab is down.
        Window,
        /// Limits the downtime.
        DeadlineTimer,
        /// Started by the deadline timer: conflicts with the window, so that the window ends.
        DeadlineTarget,
        /// Bracket: holds an exported snapshot of every database.
        PgSnapshot,
        /// Step in the window: saves Redis. Ready at the fork; ends when every file is copied.
        Redis,
        /// Bracket: the snapshots of the file systems.
        FsSnapshot,
        /// Step in the window: captures the files for which there are no snapshots.
        FilesLive,
        /// The last step in the window: checks that no proxied service was started.
        ProxiesDown,
        /// Step: starts GitLab's units again.
        Resume,
        /// Step: dumps the databases from the held snapshots.
        Postgresql,
        /// Step: stores the files and the dumps in the repository.
        Files,
        /// Step: stores the manifest, which makes the run complete.
        Manifest,
        /// Step: applies the retention after a complete run.
        Prune,
        /// Ends the silences after the grace period.
        UnsilenceTimer,
        /// Ends the silences.
        Unsilence,
        /// Reports the result of a run.
        Report,
        /// Verifies the newest run. Independent of runs.
        Verify,
        /// Starts the verification on schedule.
        VerifyTimer,
        ;
        /// The target of a stage.
        Stage(Stage),
        /// The proxy unit of a `[[gitlab.proxy]]`, by its name.
        Proxy(String),
        /// The unit of a `[[step]]`, by its name.
        Step(String),
        /// A unit of a restore.
        Restore(Restore),
    }
}

units! {
    /// The units of a restore.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    Restore {
        /// The entry: started by `gitlab-backup restore`.
        Target,
        /// The executor.
        Run,
        /// Bracket around the restore: its end removes extracted data that was not put in place.
        Staging,
        /// Step: checks everything that can be checked before GitLab is stopped.
        Preflight,
        /// The target of the steps in the window.
        Apply,
        /// Bracket: its end starts GitLab again, unless GitLab is half restored.
        Pause,
        /// Bracket: GitLab is down.
        Window,
        /// Step: undoes an unfinished restore.
        Undo,
        /// Step: extracts the dumps.
        Dumps,
        /// Step: loads the dumps beside the old databases.
        Postgresql,
        /// Step: extracts the files beside the old ones.
        Files,
        /// Step: checks that no proxied service was started.
        ProxiesDown,
        /// Step: puts the restored data in place.
        Switch,
        /// Step: deletes the old data.
        Finish,
        /// At boot: keeps a half-restored GitLab from being started.
        Guard,
        /// The same for services that systemd does not manage.
        KeepDown,
    }
}

impl From<Restore> for Unit {
    fn from(unit: Restore) -> Self {
        Self::Restore(unit)
    }
}
