//! The list of all units. A unit is added by one line here, with its row, which says everything
//! else (`rows/`).

use crate::config::Stage;

/// Passes the units, in the order of a run, each with its row, to the macro `$define`: the
/// enumeration is defined here, and the rows are found in `table.rs`, which knows them.
macro_rules! backup_units {
    ($define:ident) => {
        $define! {
            /// A unit of this program.
            #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
            Unit {
                /// Starts the target on schedule.
                Timer => entry::TIMER,
                /// Started before the timers: keeps a changed calendar from starting runs for times
                /// before the change.
                Calendar => entry::CALENDAR,
                /// The entry: started by the timer and by admins.
                Target => entry::TARGET,
                /// The executor. Not `gitlab-backup.service`: NixOS and Arch have a unit of that
                /// name.
                Run => entry::RUN,
                /// Bracket around the run: creates and removes the staging directory.
                Staging => entry::STAGING,
                /// Bracket around the run: silences the monitoring.
                Silence => monitoring::SILENCE,
                /// Reports the start of a run.
                ReportStart => monitoring::REPORT_START,
                /// Step: synchronises the proxy units with their services.
                Proxies => proxies::PROXIES,
                /// Step: checks everything that can be checked before GitLab is stopped.
                Preflight => prepare::PREFLIGHT,
                /// Step: the preflight checks that must run as PostgreSQL's OS user.
                PreflightPostgresql => prepare::PREFLIGHT_POSTGRESQL,
                /// Step: decides how each path is captured, and removes leftovers of a crash.
                FsPlan => prepare::FSPLAN,
                /// Step: the first pass of the file backup, while GitLab is up.
                Presync => prepare::PRESYNC,
                /// Step: waits until the silences have taken effect.
                Silenced => monitoring::SILENCED,
                /// Gate: its stop lets Gitaly end what is in progress, while the rest of GitLab
                /// runs.
                Drain => gates::DRAIN,
                /// Gate: its stop waits until the web is stopped, while background jobs run.
                Background => gates::BACKGROUND,
                /// Bracket: its end starts GitLab again.
                Pause => capture::PAUSE,
                /// Bracket: GitLab is down.
                Window => capture::WINDOW,
                /// Bracket: GitLab is held still.
                Hold => hold::HOLD,
                /// The target of the capture while GitLab is held still.
                HoldTarget => stages::CAPTURE_HELD,
                /// Limits the downtime.
                DeadlineTimer => deadline::TIMER,
                /// Started by the deadline timer: conflicts with the window, so that the window
                /// ends.
                DeadlineTarget => deadline::TARGET,
                /// Bracket: holds an exported snapshot of every database.
                PgSnapshot => capture::PGSNAPSHOT,
                /// Step in the window: saves Redis. Ready at the fork; ends when every file is
                /// copied.
                Redis => capture::REDIS,
                /// Bracket: the snapshots of the file systems.
                FsSnapshot => capture::FSSNAPSHOT,
                /// Step in the window: captures the files for which there are no snapshots.
                FilesLive => capture::FILES_LIVE,
                /// The last step in the window: checks that no proxied service was started.
                ProxiesDown => proxies::DOWN,
                /// Step: starts GitLab's units again.
                Resume => capture::RESUME,
                /// Step: dumps the databases from the held snapshots.
                Postgresql => store::POSTGRESQL,
                /// Step: stores the files and the dumps in the repository.
                Files => store::FILES,
                /// Step: stores the manifest, which makes the run complete.
                Manifest => store::MANIFEST,
                /// Step: applies the retention after a complete run.
                Prune => store::PRUNE,
                /// Ends the silences after the grace period.
                UnsilenceTimer => monitoring::UNSILENCE_TIMER,
                /// Ends the silences.
                Unsilence => monitoring::UNSILENCE,
                /// Reports the result of a run.
                Report => monitoring::REPORT,
                /// Verifies the newest run. Independent of runs.
                Verify => verify::SERVICE,
                /// Starts the verification on schedule.
                VerifyTimer => verify::TIMER,
                ;
                /// The target of a stage.
                Stage(stage: Stage) => stages::row(*stage),
                /// The proxy unit of a `[[gitlab.proxy]]`, by its name.
                Proxy(_name: String) => &proxies::PROXY,
                /// The unit of a `[[step]]`, by its name.
                Step(_name: String) => &step::STEP,
                /// A unit of a restore.
                Restore(unit: Restore) => unit.row(),
            }
        }
    };
}

/// The same for the units of a restore.
macro_rules! restore_units {
    ($define:ident) => {
        $define! {
            /// The units of a restore.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
            Restore {
                /// The entry: started by `gitlab-backup restore`.
                Target => restore::entry::TARGET,
                /// The executor.
                Run => restore::entry::RUN,
                /// Bracket around the restore: its end removes extracted data that was not put in
                /// place.
                Staging => restore::entry::STAGING,
                /// Step: checks everything that can be checked before GitLab is stopped.
                Preflight => restore::entry::PREFLIGHT,
                /// The target of the steps that load everything beside the live data.
                Load => restore::window::LOAD,
                /// The target of the steps that replace the live data.
                Replace => restore::window::REPLACE,
                /// The target of all these steps, in one window.
                Apply => restore::window::APPLY,
                /// The gates, as for a backup.
                Drain => gates::RESTORE_DRAIN,
                /// See [`Self::Drain`].
                Background => gates::RESTORE_BACKGROUND,
                /// Bracket: its end starts GitLab again, unless GitLab is half restored.
                Pause => restore::window::PAUSE,
                /// Bracket: GitLab is down.
                Window => restore::window::WINDOW,
                /// Step: undoes an unfinished restore, and begins this one.
                Undo => restore::replace::UNDO,
                /// Step: extracts the dumps.
                Dumps => restore::extract::DUMPS,
                /// Step: loads the dumps beside the old databases.
                Postgresql => restore::extract::POSTGRESQL,
                /// Step: extracts the files beside the old ones.
                Files => restore::extract::FILES,
                /// Step: checks that no proxied service was started.
                ProxiesDown => restore::replace::PROXIES_DOWN,
                /// Step: puts the restored data in place.
                Switch => restore::replace::SWITCH,
                /// Step: deletes the old data.
                Finish => restore::replace::FINISH,
                /// At boot: keeps a half-restored GitLab from being started.
                Guard => restore::guard::GUARD,
                /// The same for services that systemd does not manage.
                KeepDown => restore::guard::KEEP_DOWN,
            }
        }
    };
}

/// Defines an enumeration of units, and `PLAIN`, its variants without fields. Every variant is part
/// of the plans that need it.
macro_rules! enumeration {
    (
        $(#[$about:meta])*
        $kind:ident {
            $($(#[$plain_about:meta])* $plain:ident => $row:expr,)*
            $(; $(
                $(#[$named_about:meta])*
                $named:ident($given:ident: $type:ty) => $named_row:expr,
            )*)?
        }
    ) => {
        $(#[$about])*
        pub enum $kind {
            $($(#[$plain_about])* $plain,)*
            $($($(#[$named_about])* $named($type),)*)?
        }

        impl $kind {
            pub(super) const PLAIN: &[Self] = &[$(Self::$plain),*];
        }
    };
}

backup_units!(enumeration);
restore_units!(enumeration);
pub(super) use {backup_units, restore_units};

impl From<Restore> for Unit {
    fn from(unit: Restore) -> Self {
        Self::Restore(unit)
    }
}
