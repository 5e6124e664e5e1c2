//! `quiesce = "hold"`: GitLab is frozen at a moment at which nothing is in progress, so that the
//! stores agree and nobody is refused.
//!
//! The holder looks for such a moment. If there is none by itself, it holds the front (the web
//! server and the SSH server, where new connections wait), until what is in progress has ended. It
//! then freezes the rest, and proves that nothing is half way now that nothing can change: no
//! request in Puma, no push that may have moved a ref. Otherwise it lets all go and tries again.
//! What users wait is limited in its sum.
//!
//! It writes to `cgroup.freeze` itself. systemd 257 does not restart a unit that died while it was
//! frozen by `FreezeUnit`, systemd 252 does not thaw one that it is stopping.

mod kernel;
mod parts;
mod puma;
mod release;
mod search;

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::machine::Machine;
use crate::runs::held::{Held, HoldAccount};

pub use kernel::{Kernel, Linux, Member, Work};
pub use parts::{finding, obstacle};
pub use release::{let_go, release};

use parts::Parts;

/// How often the holder looks whether all is still held.
const WATCH: Duration = Duration::from_millis(50);
/// How long a process takes to exit that was killed while it was frozen. Until then its group does
/// not count as frozen, although all others are.
const EXITS: Duration = Duration::from_millis(100);
/// Between two looks meanwhile.
const LOOK: Duration = Duration::from_millis(5);
/// How often a frozen unit with a watchdog is reported as alive. systemd's shortest is one second.
const FEED: Duration = Duration::from_millis(400);

/// GitLab's units, and what of them is held.
struct Holder<'a> {
    config: &'a Config,
    machine: Machine<'a>,
    kernel: &'a dyn Kernel,
    parts: Parts,
    held: Held,
    account: &'a mut HoldAccount,
    /// When users began to wait, if they do.
    began: Option<Instant>,
    fed: Instant,
}

/// Holds GitLab, calls `ready`, and keeps it held until the unit is stopped. Returns only with an
/// error: that of an attempt that failed, or of a hold that was broken or took too long. The unit's
/// `ExecStopPost=` lets everything go.
pub async fn hold(
    config: &Config,
    machine: Machine<'_>,
    kernel: &dyn Kernel,
    ready: impl FnOnce(),
) -> Result<()> {
    // What an earlier hold may have left, so that it is not taken for ours.
    let_go(machine.root, kernel)?;
    let mut account = HoldAccount::default();
    let ended = async {
        let parts = Parts::find(config, machine.manager, kernel).await?;
        let mut holder = Holder {
            config,
            machine,
            kernel,
            parts,
            held: Held::default(),
            account: &mut account,
            began: None,
            fed: Instant::now(),
        };
        holder.acquire().await?;
        holder.held.proven = true;
        holder.held.save(machine.root)?;
        holder.account.save(machine.root)?;
        ready();
        holder.keep().await
    };
    let ended = ended.await;
    if let Err(error) = &ended {
        account.failure = Some(format!("{error:#}"));
        account.save(machine.root)?;
    }
    ended
}

impl Holder<'_> {
    /// How long users have waited, failed attempts included.
    fn waited(&self) -> Duration {
        let now = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        Duration::from_secs_f64(self.account.search.waited) + now
    }

    /// Watches what is held. Fails if something is not held any more, or users have waited too
    /// long.
    async fn keep(&mut self) -> Result<()> {
        loop {
            self.feed();
            self.ensure_held().await?;
            let longest = self.config.gitlab.hold.longest;
            if self.waited() >= longest.duration() {
                bail!(
                    "users have waited for {longest}, the longest that [gitlab] max-hold allows: \
                     everything was let go before it was captured"
                );
            }
            sleep(WATCH).await;
        }
    }

    /// Fails if a unit is not held any more.
    async fn ensure_held(&self) -> Result<()> {
        for group in self.held.groups() {
            let since = Instant::now();
            while !self.kernel.is_frozen(&group.path) {
                if since.elapsed() >= EXITS {
                    bail!("{} was ended or let go while it was held", group.unit);
                }
                sleep(LOOK).await;
            }
        }
        let names: Vec<&str> = self.held.groups().map(|group| group.unit.as_str()).collect();
        let summaries = self.machine.manager.summaries(&names).await?;
        for (unit, summary) in names.iter().zip(summaries) {
            if summary.job != 0 || !summary.active.is_running() {
                bail!("{unit} was stopped or started while it was held");
            }
        }
        Ok(())
    }

    /// Reports the frozen units that have a watchdog as alive.
    fn feed(&mut self) {
        if self.fed.elapsed() < FEED {
            return;
        }
        self.fed = Instant::now();
        for pid in &self.parts.watched {
            if let Err(error) = self.kernel.feed(*pid) {
                tracing::warn!(pid, "cannot report to systemd that it is alive: {error:#}");
            }
        }
    }
}
