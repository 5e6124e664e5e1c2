//! The replacement: everything new is there, and takes the place of the old. Done in moments, at any size.

use anyhow::{Context, Result};

use crate::config::Config;
use crate::runs::restore::{Journal, Plan, State};
use crate::steps::postgresql::client::{Client, identifier, literal};
use crate::steps::postgresql::load::{self, MAINTENANCE};
use crate::systemd::{Manager, notify};

use super::{dump_directory, globals, moves, note, plan, redis, undo};

/// Replaces. An error is taken back at once, and then nothing has changed; killed, it leaves a journal by which GitLab stays down.
pub async fn switch(config: &Config) -> Result<()> {
    if plan()?.run.is_none() {
        return Ok(());
    }
    let mut journal = Journal::load()?.context("nothing is laid out: this helper is started by its unit only")?;
    let manager = Manager::connect().await?;
    // Before the journal says so: a server that is only stopped is started again by whoever puts back.
    redis::stop(&journal.plan, &manager).await?;
    match replace(config, &manager, &mut journal).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!("{error:#}: putting back what was there before");
            notify::status("putting back what was there before");
            undo::back(config, &manager, &mut journal)
                .await
                .with_context(|| format!("{error:#}; and what was there before cannot be put back"))?;
            Err(error.context("nothing is changed: what was there before is in place"))
        }
    }
}

async fn replace(config: &Config, manager: &Manager, journal: &mut Journal) -> Result<()> {
    journal.redis_moves.clear();
    if let Some(part) = &journal.plan.redis_part {
        let dumps = dump_directory(part)?;
        for instance in &mut journal.plan.redis {
            journal.redis_moves.push(redis::lay(instance, &dumps)?);
        }
    }
    journal.moves = journal.plan.layouts.iter().map(moves::plan).collect::<Result<_>>()?;
    let properties = properties(config, &journal.plan).await?;
    tablespaces(config, &journal.plan).await?;
    rustix::fs::sync();
    journal.state = State::Switching;
    journal.save()?;

    notify::status("putting the databases in place");
    databases(config, &journal.plan, &properties).await?;
    notify::status("putting Redis' files in place");
    moves::forward(&journal.redis_moves)?;
    redis::start(config, &journal.plan, manager).await?;
    notify::status("putting the files in place");
    moves::forward(&journal.moves)?;
    for layout in &journal.plan.layouts {
        moves::adopt_mounts(layout)?;
    }
    rustix::fs::sync();
    journal.state = State::Switched;
    journal.save()
}

/// What the dumps say of the databases themselves.
async fn properties(config: &Config, plan: &Plan) -> Result<String> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else { return Ok(String::new()) };
    let client = Client::new(postgresql)?;
    let dumps = dump_directory(part)?;
    let mut sql = String::new();
    for database in &plan.databases {
        sql.push_str(&load::properties(&client, &dumps.join(&database.database.directory)).await?);
    }
    Ok(sql)
}

/// Tells of tablespaces that this server does not have.
async fn tablespaces(config: &Config, plan: &Plan) -> Result<()> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else { return Ok(()) };
    let client = Client::new(postgresql)?.dropping_to_os_user();
    let globals = globals(part)?;
    let missing = load::missing_tablespaces(&client, &globals).await?;
    if missing.is_empty() {
        return Ok(());
    }
    note(format!(
        "this server has no tablespace {}: everything is in the default tablespace of its database ('ALTER TABLE … SET TABLESPACE' moves it)",
        missing.join(", ")
    ))
}

/// Renames all databases in one transaction: all are new, or none.
async fn databases(config: &Config, plan: &Plan, properties: &str) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else { return Ok(()) };
    let client = Client::new(postgresql)?.dropping_to_os_user();
    let there = client.query(MAINTENANCE, "SELECT datname FROM pg_database;\n").await?;
    let mut sql = alone(plan);
    for database in &plan.databases {
        let live = &database.database.name;
        if there.contains(live) {
            sql.push_str(&rename(live, &database.replaced));
        }
        sql.push_str(&rename(&database.staged, live));
    }
    client.query(MAINTENANCE, &format!("BEGIN;\n{sql}COMMIT;\n")).await.context("cannot rename the databases")?;
    if !properties.is_empty() {
        client.query(MAINTENANCE, properties).await.context("cannot set the databases' own settings and privileges")?;
    }
    Ok(())
}

/// Puts the databases back under the names that they had.
pub(super) async fn databases_back(config: &Config, plan: &Plan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else { return Ok(()) };
    let client = Client::new(postgresql)?.dropping_to_os_user();
    let there = client.query(MAINTENANCE, "SELECT datname FROM pg_database;\n").await?;
    let mut sql = String::new();
    for database in &plan.databases {
        let live = &database.database.name;
        // The new one is in place if it is not beside.
        if !there.contains(&database.staged) && there.contains(live) {
            sql.push_str(&rename(live, &database.staged));
        }
        if there.contains(&database.replaced) {
            sql.push_str(&rename(&database.replaced, live));
        }
    }
    if sql.is_empty() {
        return Ok(());
    }
    let sql = format!("BEGIN;\n{}{sql}COMMIT;\n", alone(plan));
    client.query(MAINTENANCE, &sql).await.map(drop).context("cannot rename the databases back")
}

/// Drops databases that are ours.
pub(super) async fn drop_databases(config: &Config, names: &[&str]) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !names.is_empty()) else { return Ok(()) };
    let client = Client::new(postgresql)?.dropping_to_os_user();
    for name in names {
        let sql = format!("DROP DATABASE IF EXISTS {};\n", identifier(name));
        client.query(MAINTENANCE, &sql).await.with_context(|| format!("cannot drop database '{name}'"))?;
    }
    Ok(())
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {};\n", identifier(from), identifier(to))
}

/// Ends the sessions of others in these databases, of a monitoring system for example: a database in use cannot be renamed.
fn alone(plan: &Plan) -> String {
    let names = plan.databases.iter().flat_map(|database| [&database.database.name, &database.staged, &database.replaced]);
    let names: Vec<String> = names.map(|name| literal(name)).collect();
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({}) AND pid <> pg_backend_pid();\n", names.join(", "))
}
