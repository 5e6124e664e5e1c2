//! Which units there are. What each is, stands in its row: `rows/`.

use crate::config::Stage;

/// An enumeration, and all of its variants that hold nothing, in the order in which a run meets
/// them: a unit that is written down here is in every plan that needs it.
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
    /// One of our units.
    #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
    Unit {
        /// Starts the target by the clock.
        Timer,
        /// Before the timers: a calendar that was changed starts nothing for what has gone by.
        Calendar,
        /// The entry: what the timer and the admin start.
        Target,
        /// The executor. Not `gitlab-backup.service`: NixOS and Arch have a unit of that name.
        Run,
        /// Bracket, whole run: the staging area is there and is removed.
        Staging,
        /// Bracket, whole run: the monitoring is told.
        Silence,
        /// Tells that a run has begun.
        ReportStart,
        /// Step: the proxies are brought in accord with their services.
        Proxies,
        /// Step: everything that can be known before GitLab is touched.
        Preflight,
        /// The part of preflight that PostgreSQL answers only to its own user.
        PreflightPostgresql,
        /// Step: how each path of the files is captured; what a crash left of that goes.
        FsPlan,
        /// Step: first pass of the file backup with GitLab up.
        Presync,
        /// Step: the silences last long enough and have taken effect.
        Silenced,
        /// Bracket: owns the promise that GitLab comes back.
        Pause,
        /// Bracket: GitLab is down.
        Window,
        /// Guard: the longest downtime allowed.
        DeadlineTimer,
        /// What the guard starts: nothing but a conflict with the window.
        DeadlineTarget,
        /// Bracket: holds an exported snapshot of every database.
        PgSnapshot,
        /// Ready at the fork; ends when every file is secured.
        Redis,
        /// Bracket: the file systems' snapshots.
        FsSnapshot,
        /// Step in the window: where there are no snapshots, what changed since the first pass.
        FilesLive,
        /// Step in the window, the last: no proxied service was started meanwhile.
        ProxiesDown,
        /// Step: starts again what was running.
        Resume,
        /// Step: the dumps, from the held snapshots.
        Postgresql,
        /// Step: puts the files and the dumps into the repository.
        Files,
        /// Step: makes the run complete.
        Manifest,
        /// Step: retention, after a complete run.
        Prune,
        /// When the silences of a run that is over end.
        UnsilenceTimer,
        /// Ends them.
        Unsilence,
        /// Tells how a run went.
        Report,
        /// Verifies the newest run; no part of any.
        Verify,
        /// Starts that by the clock.
        VerifyTimer,
        ;
        /// All units of one stage.
        Stage(Stage),
        /// In place of a `[[gitlab.proxy]]`, by its name.
        Proxy(String),
        /// A `[[step]]`, by its name.
        Step(String),
        /// One of a restore.
        Restore(Restore),
    }
}

units! {
    /// The units of a restore.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    Restore {
        /// The entry: what `gitlab-backup restore` starts.
        Target,
        /// The executor.
        Run,
        /// Bracket, whole restore: what is laid out goes, unless it took its place.
        Staging,
        /// Step: everything that can be known before GitLab is touched.
        Preflight,
        /// All that happens in the window.
        Apply,
        /// Bracket: GitLab comes back, unless it is half old and half new.
        Pause,
        /// Bracket: GitLab is down.
        Window,
        /// Step: what an unfinished restore has replaced is put back.
        Undo,
        /// Step: the dumps are laid out.
        Dumps,
        /// Step: the dumps are loaded beside the old databases.
        Postgresql,
        /// Step: the files are laid out beside the old ones.
        Files,
        /// Step: no proxied service was started meanwhile.
        ProxiesDown,
        /// Step: the new takes the place of the old.
        Switch,
        /// Step: the old goes.
        Finish,
        /// At boot: a half restored GitLab is not started.
        Guard,
        /// The same for what something else than systemd starts.
        KeepDown,
    }
}

impl From<Restore> for Unit {
    fn from(unit: Restore) -> Self {
        Self::Restore(unit)
    }
}
