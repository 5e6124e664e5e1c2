//! Which units a configuration needs and what each stage is made of.

use crate::config::monitoring::ReportConfig;
use crate::config::{Config, Stage};

use super::{Restore, Unit};

/// The units that a configuration needs.
#[derive(Debug)]
pub struct Plan<'a> {
    config: &'a Config,
}

impl<'a> Plan<'a> {
    /// The plan of `config`.
    pub fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// What `stage` starts, in an order in which every unit comes after those it is ordered after.
    /// Empty: there is no such stage.
    pub fn members(&self, stage: Stage) -> Vec<Unit> {
        let config = self.config;
        let steps = || {
            config
                .steps
                .iter()
                .filter(|step| step.stage == stage)
                .map(|step| Unit::Step(step.name.clone()))
        };
        let mut units = Vec::new();
        match stage {
            Stage::Prepare => {
                units.extend(self.preflights());
                units.extend(steps());
                units.extend(self.freezes().then_some(Unit::FsPlan));
                units.extend(self.presync().then_some(Unit::Presync));
                units.extend(self.silence().map(|_| Unit::Silenced));
            }
            Stage::Window => {
                units.extend(config.postgresql.is_some().then_some(Unit::PgSnapshot));
                units.extend((!config.redis.is_empty()).then_some(Unit::Redis));
                units.extend(self.freezes().then_some(Unit::FsSnapshot));
                units.extend(steps());
                units.push(Unit::FilesLive);
                units.extend(self.proxies().map(|_| Unit::ProxiesDown));
            }
            Stage::Store => {
                units.extend(config.postgresql.is_some().then_some(Unit::Postgresql));
                units.extend(steps());
                units.push(Unit::Files);
                units.push(Unit::Manifest);
            }
            Stage::Finish => {
                units.extend(self.prune());
                units.extend(steps());
            }
        }
        units
    }

    /// What checks everything before anything else runs.
    pub fn preflights(&self) -> Vec<Unit> {
        let postgresql = self.config.postgresql.as_ref().map(|_| Unit::PreflightPostgresql);
        [self.proxies(), Some(Unit::Preflight), postgresql].into_iter().flatten().collect()
    }

    /// What asks the services that systemd does not manage, if there are any.
    pub fn proxies(&self) -> Option<Unit> {
        (!self.config.gitlab.proxies.is_empty()).then_some(Unit::Proxies)
    }

    /// What keeps them down after a reboot, if GitLab is half restored.
    pub fn keep_down(&self) -> Option<Restore> {
        self.proxies().map(|_| Restore::KeepDown)
    }

    /// What removes old runs, if anything is to be removed.
    pub fn prune(&self) -> Option<Unit> {
        self.config.retention.is_set().then_some(Unit::Prune)
    }

    /// What tells the monitoring to be silent, if anything is to be told.
    pub fn silence(&self) -> Option<Unit> {
        (!self.config.monitoring.silences.is_empty()).then_some(Unit::Silence)
    }

    /// What tells how a run went, if anybody wants to know.
    pub fn report(&self) -> Option<Unit> {
        (!self.config.monitoring.reports.is_empty()).then_some(Unit::Report)
    }

    /// What tells that a run has begun, for those who want to know that too.
    pub fn report_start(&self) -> Option<Unit> {
        let healthchecks = |report: &ReportConfig| matches!(report, ReportConfig::Healthchecks(_));
        self.config.monitoring.reports.iter().any(healthchecks).then_some(Unit::ReportStart)
    }

    /// Whether the files are captured by us, and not by an own command.
    pub fn freezes(&self) -> bool {
        self.config.files.command.is_none()
    }

    /// Whether a first pass of the file backup is worth it.
    pub fn presync(&self) -> bool {
        self.config.files.presync && self.config.files.command.is_none()
    }

    /// What the clock starts.
    pub fn timers(&self) -> Vec<Unit> {
        let verify = self.config.verify.calendar.as_ref().map(|_| Unit::VerifyTimer);
        [Some(Unit::Timer), verify].into_iter().flatten().collect()
    }

    /// Every unit, in the order in which a run meets them, and then what is no part of a run.
    pub fn units(&self) -> Vec<Unit> {
        let mut units = vec![Unit::Timer, Unit::Calendar, Unit::Target, Unit::Run, Unit::Staging];
        units
            .extend(self.config.gitlab.proxies.iter().map(|proxy| Unit::Proxy(proxy.name.clone())));
        units.extend(self.silence());
        units.extend(self.report_start());
        for stage in [Stage::Prepare, Stage::Window, Stage::Store, Stage::Finish] {
            let members = self.members(stage);
            if members.is_empty() {
                continue;
            }
            units.push(Unit::Stage(stage));
            if stage == Stage::Window {
                units.extend([
                    Unit::Pause,
                    Unit::Window,
                    Unit::DeadlineTimer,
                    Unit::DeadlineTarget,
                ]);
            }
            units.extend(members);
            if stage == Stage::Window {
                units.push(Unit::Resume);
            }
        }
        if self.silence().is_some() {
            units.extend([Unit::UnsilenceTimer, Unit::Unsilence]);
        }
        units.extend(self.report());
        use Restore::{Apply, Finish, Guard, Pause, Preflight, Run, Staging, Target, Window};
        let restore = [Target, Run, Staging, Preflight, Apply, Pause, Window]
            .into_iter()
            .chain(self.restore())
            .chain([Finish, Guard]);
        units.extend(restore.map(Unit::Restore));
        units.extend(self.keep_down().map(Unit::Restore));
        units.push(Unit::Verify);
        units.extend(self.timers().into_iter().filter(|timer| *timer != Unit::Timer));
        units
    }

    /// What happens in the window of a restore, in an order in which every unit comes after those
    /// it is ordered after.
    pub fn restore(&self) -> Vec<Restore> {
        let needed = |unit: &Restore| match unit {
            Restore::Postgresql => self.config.postgresql.is_some(),
            Restore::ProxiesDown => self.proxies().is_some(),
            _ => true,
        };
        Restore::APPLY.into_iter().filter(needed).collect()
    }
}
