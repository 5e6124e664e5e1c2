//! The replacement: everything new is there, and takes the place of the old. Done in moments, at
//! any size.

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::config::Config;
use crate::host::clock::{Clock, HostClock};
use crate::paths::RootDirectory;
use crate::runs::restore::{Journal, State};
use crate::systemd::{Manager, notify};

use super::databases::exchange::Server;
use super::{databases, dump_directory, moves, plan, redis, undo};

/// Replaces. An error is taken back at once, and then nothing has changed; killed, it leaves a
/// journal by which GitLab stays down.
pub async fn switch(config: &Config) -> Result<()> {
    if plan()?.run.is_none() {
        return Ok(());
    }
    let mut journal = Journal::load(&RootDirectory::host())?
        .context("nothing is laid out: this helper is started by its unit only")?;
    let manager = Manager::connect().await?;
    // Before the journal says so: a server that is only stopped is started again by whoever puts
    // back.
    redis::stop(&journal.plan, &manager).await?;
    let mut server = Server::of(config)?;
    match replace(config, &manager, &mut journal, &mut server).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!("{error:#}: putting back what was there before");
            notify::status("putting back what was there before");
            server.take_back().await;
            undo::back(config, &manager, &mut journal, &mut server).await.with_context(|| {
                format!("{error:#}; and what was there before cannot be put back")
            })?;
            Err(error.context("nothing is changed: what was there before is in place"))
        }
    }
}

async fn replace(
    config: &Config,
    manager: &Manager,
    journal: &mut Journal,
    server: &mut Server,
) -> Result<()> {
    journal.redis_moves.clear();
    if let Some(part) = &journal.plan.redis_part {
        let dumps = dump_directory(part)?;
        for instance in &mut journal.plan.redis {
            journal.redis_moves.push(redis::lay(instance, &dumps)?);
        }
    }
    journal.moves = journal.plan.layouts.iter().map(moves::plan).collect::<Result<_>>()?;
    databases::tell(config, &journal.plan).await?;
    server.number(&mut journal.plan).await?;
    rustix::fs::sync();
    journal.state = State::Switching;
    journal.save(&RootDirectory::host())?;

    notify::status("putting the databases in place");
    server.put(&journal.plan).await?;
    notify::status("putting Redis' files in place");
    // Once more: it may have been started by what wants it.
    redis::stop(&journal.plan, manager).await?;
    let down = HostClock.monotonic();
    moves::forward(&journal.redis_moves)?;
    redis::ensure_down(&journal.plan, manager, down).await?;
    redis::start(config, &journal.plan, manager).await?;
    notify::status("putting the files in place");
    moves::forward(&journal.moves)?;
    for layout in &journal.plan.layouts {
        moves::adopt_mounts(layout)?;
    }
    server.commit(&journal.plan).await?;
    rustix::fs::sync();
    journal.state = State::Switched;
    journal.switched = Some(Timestamp::now());
    journal.save(&RootDirectory::host())
}
