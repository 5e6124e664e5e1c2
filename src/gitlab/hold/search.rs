//! The search for a moment at which nothing is in progress.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use super::kernel::Work;
use super::{Holder, release};
use crate::runs::held::Taken;

/// How often the holder looks at what is in progress.
const LOOK: Duration = Duration::from_millis(10);
/// How long it looks for a moment that comes by itself.
const QUIET: Duration = Duration::from_secs(5);
/// The pause after an attempt that found something in progress.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the front is held in each attempt. Most requests are short, so the first are.
const DRAINS: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// Between two of these attempts users catch up.
const REST: Duration = Duration::from_secs(1);
/// A request that takes longer than this is waited for before the front is held, because everybody
/// would wait for it...
const BRIEF: Duration = Duration::from_millis(300);
/// ...but not for longer than this.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is kept of `max-hold` for the capture.
const CAPTURE: Duration = Duration::from_secs(3);
/// How long the kernel may take to freeze all.
const FREEZES: Duration = Duration::from_secs(1);

impl Holder<'_> {
    /// Holds GitLab. Fails if there was always something in progress.
    pub(super) async fn acquire(&mut self) -> Result<()> {
        if self.try_without_front().await? {
            return Ok(());
        }
        let drains = if self.parts.front.is_empty() { &[] } else { &DRAINS[..] };
        for drain in drains {
            self.wait_for_slow_requests().await?;
            let limit = self.left().min(*drain);
            if limit.is_zero() {
                break;
            }
            if self.try_with_front(limit).await? {
                self.account.search.front = true;
                return Ok(());
            }
            sleep(REST).await;
        }
        let front = if self.parts.front.is_empty() {
            "; no web server or SSH server of [gitlab] front runs here, at which users could wait"
        } else {
            ""
        };
        bail!(
            "there was always something in progress, now {}: {} attempts, in which users waited \
             for {:.1} s{front}",
            self.look(false)?.text(),
            self.account.search.vain,
            self.account.search.waited
        )
    }

    /// How long users may still wait until the capture begins.
    fn left(&self) -> Duration {
        let longest = self.config.gitlab.hold.longest.duration();
        longest.saturating_sub(CAPTURE.min(longest / 2)).saturating_sub(self.waited())
    }

    /// What is in progress.
    fn look(&self, exact: bool) -> Result<Work> {
        let mut work = Work::default();
        for (member, group) in &self.parts.back {
            let own = self.kernel.work(*member, &group.path, group.main_pid, exact)?;
            work.requests.extend(own.requests);
            work.pushes.extend(own.pushes);
        }
        Ok(work)
    }

    /// Waits for a moment at which nothing is in progress, without holding anybody up.
    async fn try_without_front(&mut self) -> Result<bool> {
        let since = Instant::now();
        while since.elapsed() < QUIET && !self.left().is_zero() {
            if !self.look(false)?.is_none() {
                sleep(LOOK).await;
            } else if self.freeze_and_prove().await? {
                return Ok(true);
            } else {
                self.end_attempt()?;
                sleep(PAUSE).await;
            }
        }
        Ok(false)
    }

    /// Waits until only short requests are in progress.
    async fn wait_for_slow_requests(&self) -> Result<()> {
        let since = Instant::now();
        let mut seen: HashMap<u64, Instant> = HashMap::new();
        while since.elapsed() < PATIENCE {
            let now = self.look(false)?.requests;
            seen.retain(|request, _| now.contains(request));
            for request in now {
                seen.entry(request).or_insert_with(Instant::now);
            }
            let is_slow = |first: &Instant| first.elapsed() >= BRIEF;
            if since.elapsed() >= BRIEF && !seen.values().any(is_slow) {
                break;
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Holds the front until what is in progress has ended, at most for `limit`.
    async fn try_with_front(&mut self, limit: Duration) -> Result<bool> {
        self.begin_wait();
        let front = self.parts.front.clone();
        self.take(&front).await?;
        let since = Instant::now();
        while since.elapsed() < limit {
            self.feed();
            if self.look(false)?.is_none() {
                if self.freeze_and_prove().await? {
                    return Ok(true);
                }
                // The front stays held.
                self.give_back(front.len())?;
            }
            sleep(LOOK).await;
        }
        self.end_attempt()?;
        Ok(false)
    }

    /// Freezes the rest, and proves that nothing is in progress.
    async fn freeze_and_prove(&mut self) -> Result<bool> {
        self.begin_wait();
        let back = self.parts.back.iter().map(|(_, group)| Taken::Group(group.clone()));
        let back: Vec<Taken> = back.collect();
        if !self.take(&back).await? {
            return Ok(false);
        }
        let work = self.look(true)?;
        if !work.is_none() {
            tracing::info!("not yet: {}", work.text());
        }
        Ok(work.is_none())
    }

    /// Takes these; they are on record before. Returns false if one could not be frozen in time.
    async fn take(&mut self, all: &[Taken]) -> Result<bool> {
        self.held.taken.extend(all.iter().cloned());
        self.held.save(self.machine.root)?;
        for taken in all {
            match taken {
                Taken::Group(group) => self.kernel.freeze(&group.path)?,
                Taken::Listener(listener) => self.kernel.stop(listener, true)?,
            }
        }
        let since = Instant::now();
        let groups = || all.iter().filter_map(Taken::group);
        while let Some(group) = groups().find(|group| !self.kernel.is_frozen(&group.path)) {
            if since.elapsed() >= FREEZES {
                tracing::info!(unit = group.unit, "is not frozen after {FREEZES:?}");
                return Ok(false);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(true)
    }

    /// Gives back all but the first `kept` that were taken.
    fn give_back(&mut self, kept: usize) -> Result<()> {
        release::undo(&self.held.taken[kept..], self.kernel)?;
        self.held.taken.truncate(kept);
        self.held.save(self.machine.root)
    }

    /// Users begin to wait.
    fn begin_wait(&mut self) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.account.since = self.machine.clock.monotonic();
        }
    }

    /// Gives all back after an attempt that found something in progress.
    fn end_attempt(&mut self) -> Result<()> {
        self.give_back(0)?;
        if let Some(began) = self.began.take() {
            self.account.search.add_vain(began.elapsed());
            self.account.since = 0;
        }
        Ok(())
    }
}
