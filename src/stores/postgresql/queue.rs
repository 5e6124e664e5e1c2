//! Watches the sessions that wait for a lock of this run. A statement that changes a table waits
//! until the table is dumped, and all later queries on the table, including GitLab's, wait behind
//! that statement. So the run fails if a session has waited for too long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::SnapshotHolder;
use super::session::Session;

const WAITING: &str = "SELECT l.pid, l.relation, l.mode, b.pid, coalesce(a.usename::text, '?'), \
                       pg_catalog.left(coalesce(a.query, ''), 200) \
    FROM pg_catalog.pg_locks l CROSS JOIN LATERAL \
    pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b (pid) \
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted AND l.locktype = \
    'relation' AND b.pid = ANY($1)";

/// The sessions that wait for a lock of this run.
pub(super) struct LockWaiters {
    /// How long a session may wait.
    limit: Duration,
    /// When each session was first seen waiting, by its PID.
    since: HashMap<i32, Instant>,
}

impl LockWaiters {
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: HashMap::new() }
    }

    /// Fails if a session has waited for longer than the limit.
    pub async fn check(&mut self, watch: &Session, holders: &[SnapshotHolder]) -> Result<()> {
        let ours: Vec<i32> = holders.iter().map(|holder| holder.pid).collect();
        let now = Instant::now();
        let mut since = HashMap::new();
        for row in watch.rows(WAITING, &[&ours]).await? {
            let (pid, relation, mode): (i32, u32, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (blocker, user, statement): (i32, String, String) =
                (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            let start = *self.since.get(&pid).unwrap_or(&now);
            since.insert(pid, start);
            let Some(holder) = holders.iter().find(|holder| holder.pid == blocker) else {
                continue;
            };
            if now.duration_since(start) >= self.limit {
                let table = holder.tables.get(&relation).map_or("?", String::as_str);
                bail!(
                    "session {pid} of '{user}' has waited for {} s ([postgresql] ddl-wait) to \
                     change table {table} of database '{}' ({mode}), which is not \
                     dumped yet: releasing the lock, so this run cannot be completed. The waiting \
                     statement: {statement}",
                    self.limit.as_secs(),
                    holder.database.name
                );
            }
        }
        self.since = since;
        Ok(())
    }
}
