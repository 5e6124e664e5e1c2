//! The renames that put new databases in the place of the old ones, and back.
//!
//! On the way there they are one transaction, which stays open until everything else of the restore
//! is in place: whatever fails before, the server takes them back, and nobody can keep it from
//! that. Until then nobody enters one of them, neither the old nor the new.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::config::{Config, Postgresql};
use crate::runs::notes::note;
use crate::runs::restore::{Journal, Numbers, RestorePlan, StagedDatabase, State};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::globals::open;
use crate::stores::postgresql::quoting::identifier;
use crate::stores::postgresql::session::Session;

use super::databases::{PATIENCE, PAUSE, end, holders, numbers, unprepared};
use super::dumps::recorded;

/// How long a server that is lost in the middle of the renames is asked again.
const RETURN: Duration = Duration::from_secs(60);
/// GitLab waits for no other server to have heard of them.
const LOCAL: &str = "SET LOCAL synchronous_commit TO local";

/// The server, by one session as long as that lasts: who fills the server keeps us from another.
pub(super) struct Exchange<'a> {
    postgresql: Option<&'a Postgresql>,
    session: Option<Session>,
}

impl<'a> Exchange<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { postgresql: config.postgresql.as_ref(), session: None }
    }

    /// None if no databases are restored.
    async fn session(&mut self, plan: &RestorePlan) -> Result<Option<&Session>> {
        let Some(postgresql) = self.postgresql.filter(|_| !plan.databases.is_empty()) else {
            return Ok(None);
        };
        if self.session.as_ref().is_none_or(Session::is_lost) {
            self.session = Some(Client::restoring(postgresql)?.insist(MAINTENANCE).await?);
        }
        Ok(self.session.as_ref())
    }

    /// Writes down which databases are going to be exchanged.
    pub async fn number(&mut self, plan: &mut RestorePlan) -> Result<()> {
        let Some(session) = self.session(plan).await? else { return Ok(()) };
        let there = numbers(session).await?;
        for database in &mut plan.databases {
            let new = *there
                .get(&database.staged)
                .with_context(|| format!("database '{}' is not laid out", database.staged))?;
            database.numbers =
                Some(Numbers { new, old: there.get(&database.database.name).copied() });
        }
        Ok(())
    }

    /// Begins the exchange of all databases for the new ones: [`commit`](Self::commit) makes it so,
    /// [`roll_back`](Self::roll_back) or the end of the session takes it back.
    pub async fn put(&mut self, plan: &RestorePlan) -> Result<()> {
        let Some(session) = self.session(plan).await? else { return Ok(()) };
        let statements = way_there(plan, &numbers(session).await?)?;
        exchange(session, plan, &statements).await.context("cannot rename the databases")
    }

    /// Takes back what was begun.
    pub async fn roll_back(&mut self) {
        if let Some(session) = &self.session
            && let Err(error) = session.run("ROLLBACK").await
        {
            // Its end does that too.
            tracing::debug!("{error:#}");
            self.session = None;
        }
    }

    /// Gives each new database to its owner, ends the exchange, and gives each what belongs to its
    /// name. The last of a restore that can fail: from here on others may be in them.
    pub async fn commit(&mut self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        let globals = recorded(part)?.globals;
        let Some(session) = self.session.as_ref().filter(|_| !plan.databases.is_empty()) else {
            return Ok(());
        };
        for database in &plan.databases {
            let (live, owner) = (&database.database.name, &database.database.owner);
            if !owner.is_empty() {
                session
                    .run(&owned(live, &identifier(owner)))
                    .await
                    .context("cannot give the databases to their owners")?;
            }
            // Nothing tells who was let in besides.
            if globals.is_none() {
                session.run(&open(live)).await?;
            }
        }
        if let Err(error) = session.run("COMMIT").await {
            // It may have been done, and the answer been lost.
            sleep(PAUSE).await;
            ensure!(session.is_lost(), "{error:#}");
            let Some(session) = self.session(plan).await? else { return Ok(()) };
            ensure!(
                is_done(plan, &numbers(session).await?),
                "the databases are not exchanged: {error:#}"
            );
        }
        let (Some(globals), Some(session)) = (globals, self.session(plan).await?) else {
            return Ok(());
        };
        for database in &plan.databases {
            let name = &database.database.name;
            // What cannot be given to it is no reason to take it back.
            let missing = globals.adorn(session, name).await;
            let mut missing = missing.unwrap_or_else(|error| {
                vec![format!(
                    "database '{name}' is without all of its settings and privileges: {error:#}"
                )]
            });
            if database.database.template
                && let Err(error) = session
                    .run(&format!("ALTER DATABASE {} IS_TEMPLATE true", identifier(name)))
                    .await
            {
                missing
                    .push(format!("database '{name}' was a template, and is none now: {error:#}"));
            }
            for missing in missing {
                if let Err(error) = note(missing) {
                    tracing::warn!("{error:#}");
                }
            }
        }
        Ok(())
    }

    /// Proves that the databases can be put back: that each which is to come back is there.
    ///
    /// # Errors
    /// If one is not. Nothing was touched.
    pub async fn prove(&mut self, journal: &Journal) -> Result<()> {
        let Some(session) = self.session(&journal.plan).await? else { return Ok(()) };
        way_back(&journal.plan, journal.state, &numbers(session).await?)?;
        unprepared(
            session,
            journal
                .plan
                .databases
                .iter()
                .flat_map(|database| [&database.database.name, &database.replaced]),
        )
        .await
    }

    /// What would put the databases back, by what the server has now.
    ///
    /// # Errors
    /// If one that is to come back is gone, or the server cannot be asked.
    pub async fn way(&mut self, journal: &Journal) -> Result<Vec<String>> {
        let Some(session) = self.session(&journal.plan).await? else { return Ok(Vec::new()) };
        way_back(&journal.plan, journal.state, &numbers(session).await?)
    }

    /// Puts the databases back under the names that they had. A server that is lost in the middle
    /// may have done it: it is asked, and they are done again if not.
    pub async fn back(&mut self, journal: &Journal) -> Result<()> {
        let until = Instant::now() + RETURN;
        loop {
            let statements = self.way(journal).await?;
            let Some(session) = self.session.as_ref().filter(|_| !statements.is_empty()) else {
                return Ok(());
            };
            let done = async {
                exchange(session, &journal.plan, &statements).await?;
                session.run("COMMIT").await
            };
            let Err(error) = done.await else { return Ok(()) };
            // It is known a moment later.
            sleep(PAUSE).await;
            if !session.is_lost() || Instant::now() >= until {
                return Err(error).context("cannot rename the databases back");
            }
            tracing::warn!("{error:#}: asking the server again");
        }
    }
}

/// Whether every new database is in place, by what is `there`.
fn is_done(plan: &RestorePlan, there: &HashMap<String, u32>) -> bool {
    let new = |database: &StagedDatabase| {
        database.numbers.is_some_and(|known| there.get(&database.database.name) == Some(&known.new))
    };
    plan.databases.iter().all(new)
}

/// The renames that put every new database in place, by what is `there`.
fn way_there(plan: &RestorePlan, there: &HashMap<String, u32>) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for database in &plan.databases {
        let (live, known) =
            (&database.database.name, database.numbers.context("a database is not numbered")?);
        ensure!(
            there.get(&database.staged) == Some(&known.new)
                && there.get(live).copied() == known.old,
            "database '{live}' or '{}' was exchanged for another meanwhile",
            database.staged
        );
        if known.old.is_some() {
            statements.push(rename(live, &database.replaced));
        }
        statements.push(rename(&database.staged, live));
        // A live one is not ours to remove.
        statements.push(format!("COMMENT ON DATABASE {} IS NULL", identifier(live)));
    }
    Ok(statements)
}

/// The renames that put every database back, by what is `there`.
///
/// # Errors
/// If one that is to come back is gone: a live database does not make way for nothing.
fn way_back(plan: &RestorePlan, state: State, there: &HashMap<String, u32>) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for database in &plan.databases {
        let StagedDatabase { staged, replaced, .. } = database;
        let live = &database.database.name;
        let (now, aside) = (there.get(live), there.get(replaced));
        let gone = || {
            format!(
                "the database that '{live}' has replaced is gone: there is no '{replaced}' that it was. What is live stays as it is; \
                 'gitlab-backup restore' restores a run"
            )
        };
        let (came, comes) = match database.numbers {
            Some(Numbers { old: Some(old), .. }) if now == Some(&old) => (false, false),
            Some(Numbers { new, old: Some(old) }) => {
                ensure!(aside == Some(&old), "{}", gone());
                ensure!(
                    now.is_none_or(|now| *now == new),
                    "database '{live}' is not the one that was restored: rename or drop it"
                );
                (now.is_some(), true)
            }
            // Another that was made since is nothing of ours.
            Some(Numbers { new, old: None }) => (now == Some(&new), false),
            // Of an older version: by the names alone.
            None if there.contains_key(staged) => (false, now.is_none() && aside.is_some()),
            None => {
                // GitLab has not run half way, so there was none before.
                ensure!(aside.is_some() || state == State::Switching, "{}", gone());
                (now.is_some(), aside.is_some())
            }
        };
        ensure!(
            !came || !there.contains_key(staged),
            "database '{staged}' is in the way: rename or drop it"
        );
        if came {
            statements.push(rename(live, staged));
        }
        if comes {
            statements.push(rename(replaced, live));
        }
    }
    Ok(statements)
}

/// Renames in a transaction that stays open, with nobody in the databases: whoever comes back at
/// once is sent away again.
async fn exchange(session: &Session, plan: &RestorePlan, statements: &[String]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let statements = [&[LOCAL.to_owned()], statements].concat();
    loop {
        alone(session, plan).await?;
        let Err(error) = session.hold(&statements).await else { return Ok(()) };
        if Instant::now() >= until {
            let mut holding = Vec::new();
            for database in &plan.databases {
                for name in [&database.database.name, &database.replaced] {
                    holding.extend(
                        holders(session, name)
                            .await
                            .into_iter()
                            .map(|holder| format!("{holder} in '{name}'")),
                    );
                }
            }
            return Err(if holding.is_empty() {
                error
            } else {
                error.context(format!("held by {}", holding.join(", ")))
            });
        }
        sleep(PAUSE).await;
    }
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to))
}

fn owned(name: &str, owner: &str) -> String {
    format!("ALTER DATABASE {} OWNER TO {owner}", identifier(name))
}

/// Ends the sessions of others in these databases, of a monitoring system for example: a database
/// in use cannot be renamed.
async fn alone(session: &Session, plan: &RestorePlan) -> Result<()> {
    let names: Vec<&str> = plan
        .databases
        .iter()
        .flat_map(|database| [&database.database.name, &database.staged, &database.replaced])
        .map(String::as_str)
        .collect();
    end(session, &names).await
}

#[cfg(test)]
mod tests;
