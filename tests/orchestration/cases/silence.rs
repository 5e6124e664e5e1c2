//! A silence of the monitoring by the clock: extended, ended late, given up.

use gitlab_backup::monitoring::held::{SilenceEntry, SilenceRecord};
use gitlab_backup::run::silence;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, sleep};

use super::*;

/// A silence that cannot be requested and cannot be ended: its token does not exist.
const SILENCED: &str = "[monitoring.broadcast]\nurl = \"http://127.0.0.1:1\"\n\
                        token-file = \"/nonexistent/token\"\n";
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Records a silence that has begun and lasts for three days. Returns the time at which it began.
async fn silenced(host: &Host) -> Timestamp {
    let begun = host.with_base(async |base| base.clock.now()).await;
    let silences = host.config.monitoring.silences.iter().cloned();
    let entries = silences.map(|silence| SilenceEntry {
        begun: true,
        id: Some("1".to_owned()),
        ..SilenceEntry::new(silence)
    });
    let until = begun + 72 * HOUR;
    let (over, silences, late) = (None, entries.collect(), Vec::new());
    SilenceRecord { begun, until, over, silences, late }.save(&host.root).unwrap();
    begun
}

fn record(host: &Host) -> Option<SilenceRecord> {
    SilenceRecord::load(&host.root).unwrap()
}

async fn hours(count: u64) {
    sleep(Duration::from_secs(count * 3600)).await;
}

async fn ensure_in_effect(host: &Host) {
    let connect = async || Ok(host.systemd.clone());
    let ensured = async |base: Base<'_>| {
        silence::ensure_in_effect(&host.config, base, connect).await.unwrap();
    };
    host.with_base(ensured).await;
}

async fn end(host: &Host) {
    let connect = async || Ok(host.systemd.clone());
    let later = async |unit: String| host.systemd.start_later(&unit).await;
    host.with_base(async |base| silence::end(base, connect, later).await.unwrap()).await;
}

async fn unsilence(host: &Host) -> Result<(), String> {
    let connect = async || Ok(host.systemd.clone());
    let ended = host.with_base(async |base| silence::unsilence(base, connect).await).await;
    ended.map_err(|error| format!("{error:#}"))
}

cases! {
    extended_if_it_would_end_in_the_window: async {
        let host = Host::new(SILENCED).await;
        let begun = silenced(&host).await;
        hours(71).await;
        ensure_in_effect(&host).await;
        assert_eq!(record(&host).unwrap().begun, begun, "it lasts until after the window");
        hours(1).await;
        ensure_in_effect(&host).await;
        let extended = record(&host).unwrap();
        assert!(extended.begun >= begun + 72 * HOUR && extended.until > begun + 72 * HOUR);
        assert_eq!(extended.missing().len(), 1, "the request has failed, and is on record");
    };
    ended_only_after_the_executor: async {
        let host = Host::new(&format!("{STEPS}{SILENCED}")).await;
        host.takes(&step("prepare"), 3.0);
        host.begin();
        host.wait_until_activating(&step("prepare")).await;
        silenced(&host).await;
        end(&host).await;
        assert_eq!(record(&host).unwrap().over, None, "the run goes on");
        let error = unsilence(&host).await.unwrap_err();
        assert!(error.contains("is still running"), "{error}");
        host.end().await;
        end(&host).await;
        assert!(record(&host).unwrap().over.is_some());
    };
    given_up_a_day_after_the_run: async {
        let host = Host::new(SILENCED).await;
        silenced(&host).await;
        end(&host).await;
        hours(23).await;
        let error = unsilence(&host).await.unwrap_err();
        assert!(error.contains("will retry"), "{error}");
        assert_eq!(record(&host).unwrap().silences.len(), 1);
        hours(2).await;
        assert_eq!(unsilence(&host).await, Ok(()));
        assert!(record(&host).is_none());
    };
}
