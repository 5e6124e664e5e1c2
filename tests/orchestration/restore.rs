//! The units of a restore. The programs that would move data only change the journal, as the real
//! ones do: `undo` creates it, `switch` replaces, `finish` removes it.

use std::path::PathBuf;

use anyhow::Result;
use gitlab_backup::executor;
use gitlab_backup::gitlab::window;
use gitlab_backup::machine::Base;
use gitlab_backup::paths;
use gitlab_backup::restore;
use gitlab_backup::runs::restore::{Request, RestoreJournal, RestorePlan, State};
use gitlab_backup::runs::{Kind, Record, paused};
use jiff::Timestamp;

use crate::host::{Host, Real, Silent};
use crate::systemd::{PausedClock, Program};

pub const TARGET: &str = "gitlab-backup-restore.target";
pub const RUN: &str = "gitlab-backup-restore-run.service";
pub const PREFLIGHT: &str = "gitlab-backup-restore-preflight.service";
pub const STAGING: &str = "gitlab-backup-restore-staging.service";
pub const PAUSE: &str = "gitlab-backup-restore-pause.service";
pub const DRAIN: &str = "gitlab-backup-restore-drain.service";
pub const BACKGROUND: &str = "gitlab-backup-restore-background.service";
pub const WINDOW: &str = "gitlab-backup-restore-window.service";
pub const UNDO: &str = "gitlab-backup-restore-undo.service";
pub const POSTGRESQL: &str = "gitlab-backup-restore-postgresql.service";
pub const SWITCH: &str = "gitlab-backup-restore-switch.service";
pub const FINISH: &str = "gitlab-backup-restore-finish.service";

impl Host {
    /// Requests a restore, as `gitlab-backup restore` does.
    pub fn begin_restore(&self) {
        self.request_restore(false);
    }

    /// Requests a restore that stops GitLab before it loads.
    pub fn begin_restore_stopped(&self) {
        self.request_restore(true);
    }

    fn request_restore(&self, stop_first: bool) {
        let request = Request {
            run: Some("20240101T000000Z-0001".parse().unwrap()),
            only: Vec::new(),
            path: None,
            with_config: false,
            allow_version_mismatch: false,
            skip_redis: Vec::new(),
            stop_first,
        };
        let file = self.at(paths::RESTORE_REQUEST);
        std::fs::write(file, serde_json::to_vec(&request).unwrap()).unwrap();
        self.systemd.admin_starts(TARGET);
    }

    /// Executes a restore.
    pub async fn restore(&self) -> Record {
        self.begin_restore();
        self.restored().await
    }

    /// Waits until no unit of this program is busy, and returns the record of the restore.
    pub async fn restored(&self) -> Record {
        self.wait_until(|host| host.is_over()).await;
        Record::last(&self.root, Kind::Restore).unwrap().expect("a restore is on record")
    }

    /// The state of the replacement, if there is a journal.
    pub fn replaced(&self) -> Option<State> {
        RestoreJournal::load(&self.root).unwrap().map(|journal| journal.state)
    }
}

impl Real {
    pub fn restore(self) -> Program {
        self.program(|own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            executor::restore(&own.config, base, async || Ok(own.systemd.clone())).await
        })
    }

    pub fn conclude_restore(self) -> Program {
        self.concludes(Kind::Restore)
    }

    pub fn restore_window(self) -> Program {
        self.program(|own, _| async move {
            let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
            let base = Base { clock: &clock, journal: &journal, root: &own.root };
            window::open(&own.config, base.with(&own.systemd), true).await
        })
    }

    /// Puts back an incomplete replacement, and creates the journal.
    pub fn undo(self, work: Program) -> Program {
        self.program(move |own, process| {
            let work = work(process);
            async move {
                ends_well(work.await)?;
                let journal = RestoreJournal {
                    state: State::Staging,
                    started: Timestamp::UNIX_EPOCH,
                    switched: None,
                    undo: false,
                    plan: RestorePlan::of(None),
                    paused: paused::load(&own.root)?.unwrap_or_default(),
                    moves: Vec::new(),
                    redis_moves: Vec::new(),
                };
                own.save(&journal)
            }
        })
    }

    /// Replaces. A failed replacement is undone, a killed one is not.
    pub fn switch(self, work: Program) -> Program {
        self.program(move |own, process| {
            let work = work(process);
            async move {
                let (clock, journal) = (PausedClock::of(&own.systemd), Silent);
                let base = Base { clock: &clock, journal: &journal, root: &own.root };
                restore::ensure_loaded(&own.config, base.with(&own.systemd)).await?;
                own.reached(State::Switching)?;
                let ended = ends_well(work.await);
                own.reached(if ended.is_ok() { State::Switched } else { State::Staging })?;
                ended
            }
        })
    }

    pub fn finish(self, work: Program) -> Program {
        self.program(move |own, process| {
            let work = work(process);
            async move {
                ends_well(work.await)?;
                RestoreJournal::clear(&own.root)
            }
        })
    }

    /// Removes the staged data, unless a replacement has begun.
    pub fn unstage_restore(self) -> Program {
        self.program(|own, _| async move {
            match RestoreJournal::load(&own.root)? {
                Some(journal) if journal.state == State::Staging => {
                    RestoreJournal::clear(&own.root)
                }
                _ => Ok(()),
            }
        })
    }

    fn reached(&self, state: State) -> Result<()> {
        let mut journal = RestoreJournal::load(&self.root)?.expect("undo has begun a journal");
        journal.state = state;
        self.save(&journal)
    }

    fn save(&self, journal: &RestoreJournal) -> Result<()> {
        let directory: PathBuf = self.root.at(paths::RESTORE);
        std::fs::create_dir_all(directory)?;
        journal.save(&self.root)
    }
}

fn ends_well(status: i32) -> Result<()> {
    anyhow::ensure!(status == 0, "ended with {status}");
    Ok(())
}
