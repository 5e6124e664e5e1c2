//! Exchanges the old databases for the new ones by renames, and back.
//!
//! The renames are one transaction, which stays open until everything else of the restore is in
//! place. If anything fails before, the server rolls them back, which no other session can prevent.
//! While the transaction is open, nobody can connect to the old or the new databases.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::config::{Config, Postgresql};
use crate::paths::RootDirectory;
use crate::runs::notes::note;
use crate::runs::restore::{Numbers, RestoreJournal, RestorePlan, StagedDatabase, State};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::globals::{Globals, grant_default_privileges};
use crate::stores::postgresql::quoting::identifier;
use crate::stores::postgresql::session::Session;

use super::databases::{PAUSE, TIMEOUT, end_sessions, ensure_no_prepared, holders, oids};
use super::dumps::read_record;

/// How long to retry if the connection is lost while the databases are renamed back.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The commit does not wait for a standby server.
const LOCAL: &str = "SET LOCAL synchronous_commit TO local";

/// The exchange of the databases. It keeps one session for as long as possible: if the server has
/// too many connections, a new one may fail.
pub(super) struct Exchange<'a> {
    postgresql: Option<&'a Postgresql>,
    root: &'a RootDirectory,
    session: Option<Session>,
}

impl<'a> Exchange<'a> {
    pub fn new(config: &'a Config, root: &'a RootDirectory) -> Self {
        Self { postgresql: config.postgresql.as_ref(), root, session: None }
    }

    /// Returns the session, and opens one if there is none. `None` if no databases are restored.
    async fn session(&mut self, plan: &RestorePlan) -> Result<Option<&Session>> {
        let Some(postgresql) = self.postgresql.filter(|_| !plan.databases.is_empty()) else {
            return Ok(None);
        };
        if self.session.as_ref().is_none_or(Session::is_lost) {
            self.session =
                Some(Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?);
        }
        Ok(self.session.as_ref())
    }

    /// Records in the plan the OIDs of the databases that are going to be exchanged.
    pub async fn record_numbers(&mut self, plan: &mut RestorePlan) -> Result<()> {
        let Some(session) = self.session(plan).await? else { return Ok(()) };
        let oids = oids(session).await?;
        for database in &mut plan.databases {
            let new = *oids
                .get(&database.staged)
                .with_context(|| format!("database '{}' does not exist", database.staged))?;
            database.numbers =
                Some(Numbers { new, old: oids.get(&database.database.name).copied() });
        }
        Ok(())
    }

    /// Renames the databases in a transaction that stays open. [`commit`](Self::commit) commits it;
    /// [`roll_back`](Self::roll_back) or the end of the session rolls it back.
    pub async fn put(&mut self, plan: &RestorePlan) -> Result<()> {
        let Some(session) = self.session(plan).await? else { return Ok(()) };
        let statements = renames_forward(plan, &oids(session).await?)?;
        rename_all(session, plan, &statements).await.context("cannot rename the databases")
    }

    /// Rolls back the renames of [`put`](Self::put).
    pub async fn roll_back(&mut self) {
        if let Some(session) = &self.session
            && let Err(error) = session.run("ROLLBACK").await
        {
            // The end of the session rolls back, too.
            tracing::debug!("{error:#}");
            self.session = None;
        }
    }

    /// Gives each new database to its owner, commits the renames, and restores the settings and
    /// privileges of the databases. No later step of the restore may fail: from here on, other
    /// sessions can change the new databases.
    pub async fn commit(&mut self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        let root = self.root;
        let globals = read_record(root, part)?.globals;
        let Some(session) = self.session.as_ref().filter(|_| !plan.databases.is_empty()) else {
            return Ok(());
        };
        for database in &plan.databases {
            let (live, owner) = (&database.database.name, &database.database.owner);
            if !owner.is_empty() {
                session
                    .run(&change_owner(live, &identifier(owner)))
                    .await
                    .context("cannot give the databases to their owners")?;
            }
            // The run has not recorded the privileges.
            if globals.is_none() {
                session.run(&grant_default_privileges(live)).await?;
            }
        }
        if let Err(error) = session.run("COMMIT").await {
            // If the connection was lost, the server may have committed.
            sleep(PAUSE).await;
            ensure!(session.is_lost(), "{error:#}");
            let Some(session) = self.session(plan).await? else { return Ok(()) };
            ensure!(
                is_done(plan, &oids(session).await?),
                "the databases are not exchanged: {error:#}"
            );
        }
        if let (Some(globals), Some(session)) = (globals, self.session(plan).await?) {
            for database in &plan.databases {
                restore_properties(session, &globals, database, root).await;
            }
        }
        Ok(())
    }

    /// Checks that the databases can be put back. Changes nothing.
    ///
    /// # Errors
    /// If an old database is gone.
    pub async fn prove(&mut self, journal: &RestoreJournal) -> Result<()> {
        let Some(session) = self.session(&journal.plan).await? else { return Ok(()) };
        plan_renames_back(&journal.plan, journal.state, &oids(session).await?)?;
        ensure_no_prepared(
            session,
            journal
                .plan
                .databases
                .iter()
                .flat_map(|database| [&database.database.name, &database.replaced]),
        )
        .await
    }

    /// Returns the renames that put the databases back, depending on the databases that the server
    /// has now.
    ///
    /// # Errors
    /// If an old database is gone, or the server cannot be reached.
    pub async fn renames_back(&mut self, journal: &RestoreJournal) -> Result<Vec<String>> {
        let Some(session) = self.session(&journal.plan).await? else { return Ok(Vec::new()) };
        plan_renames_back(&journal.plan, journal.state, &oids(session).await?)
    }

    /// Renames the databases back. If the connection is lost, checks whether the server has
    /// committed the renames, and repeats them if not.
    pub async fn put_back(&mut self, journal: &RestoreJournal) -> Result<()> {
        let until = Instant::now() + RETRY_FOR;
        loop {
            let statements = self.renames_back(journal).await?;
            let Some(session) = self.session.as_ref().filter(|_| !statements.is_empty()) else {
                return Ok(());
            };
            let renaming = async {
                rename_all(session, &journal.plan, &statements).await?;
                session.run("COMMIT").await
            };
            let Err(error) = renaming.await else { return Ok(()) };
            // The loss of a connection is noticed a moment after the error.
            sleep(PAUSE).await;
            if !session.is_lost() || Instant::now() >= until {
                return Err(error).context("cannot rename the databases back");
            }
            tracing::warn!("{error:#}: trying again");
        }
    }
}

/// Restores the settings, privileges and template flag of a database that is in place. Notes what
/// fails: that is no reason to undo the restore.
async fn restore_properties(
    session: &Session,
    globals: &Globals,
    database: &StagedDatabase,
    root: &RootDirectory,
) {
    let name = &database.database.name;
    let mut failed = globals.restore_properties(session, name).await.unwrap_or_else(|error| {
        vec![format!("the settings and privileges of database '{name}' are incomplete: {error:#}")]
    });
    if database.database.template
        && let Err(error) =
            session.run(&format!("ALTER DATABASE {} IS_TEMPLATE true", identifier(name))).await
    {
        failed.push(format!("database '{name}' is not a template any more: {error:#}"));
    }
    for failure in failed {
        if let Err(error) = note(root, failure) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Whether every new database is in place. `oids` has the databases of the server.
fn is_done(plan: &RestorePlan, oids: &HashMap<String, u32>) -> bool {
    let is_new = |database: &StagedDatabase| {
        database
            .numbers
            .is_some_and(|numbers| oids.get(&database.database.name) == Some(&numbers.new))
    };
    plan.databases.iter().all(is_new)
}

/// Returns the renames that put every new database in place. `oids` has the databases of the
/// server.
fn renames_forward(plan: &RestorePlan, oids: &HashMap<String, u32>) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for database in &plan.databases {
        let live = &database.database.name;
        let numbers = database.numbers.context("the OIDs of a database are not recorded")?;
        ensure!(
            oids.get(&database.staged) == Some(&numbers.new)
                && oids.get(live).copied() == numbers.old,
            "database '{live}' or '{}' was replaced by another process during the restore",
            database.staged
        );
        if numbers.old.is_some() {
            statements.push(rename(live, &database.replaced));
        }
        statements.push(rename(&database.staged, live));
        // Remove the mark: a live database must not be taken for one of a restore.
        statements.push(format!("COMMENT ON DATABASE {} IS NULL", identifier(live)));
    }
    Ok(statements)
}

/// Returns the renames that put every database back. `oids` has the databases of the server.
///
/// # Errors
/// If an old database is gone: then the new one stays in place.
fn plan_renames_back(
    plan: &RestorePlan,
    state: State,
    oids: &HashMap<String, u32>,
) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for database in &plan.databases {
        let StagedDatabase { staged, replaced, .. } = database;
        let live = &database.database.name;
        let (now, aside) = (oids.get(live), oids.get(replaced));
        let gone = || {
            format!(
                "the database that '{live}' has replaced is gone: there is no '{replaced}', or it \
                 is another one. The live database is unchanged; \
                 'gitlab-backup restore' restores a run"
            )
        };
        let (new_leaves, old_returns) = match database.numbers {
            Some(Numbers { old: Some(old), .. }) if now == Some(&old) => (false, false),
            Some(Numbers { new, old: Some(old) }) => {
                ensure!(aside == Some(&old), "{}", gone());
                ensure!(
                    now.is_none_or(|now| *now == new),
                    "database '{live}' is not the one that was restored: rename or drop it"
                );
                (now.is_some(), true)
            }
            // A database that somebody else has created since is left alone.
            Some(Numbers { new, old: None }) => (now == Some(&new), false),
            // The journal of an older version has only names.
            None if oids.contains_key(staged) => (false, now.is_none() && aside.is_some()),
            None => {
                // In this state GitLab has not run, so there was no database before.
                ensure!(aside.is_some() || state == State::Switching, "{}", gone());
                (now.is_some(), aside.is_some())
            }
        };
        ensure!(
            !new_leaves || !oids.contains_key(staged),
            "database '{staged}' is in the way: rename or drop it"
        );
        if new_leaves {
            statements.push(rename(live, staged));
        }
        if old_returns {
            statements.push(rename(replaced, live));
        }
    }
    Ok(statements)
}

/// Runs the renames in a transaction that stays open. Ends the sessions in the databases, again and
/// again if they reconnect.
async fn rename_all(session: &Session, plan: &RestorePlan, statements: &[String]) -> Result<()> {
    let until = Instant::now() + TIMEOUT;
    let statements = [&[LOCAL.to_owned()], statements].concat();
    loop {
        end_all_sessions(session, plan).await?;
        let Err(error) = session.begin(&statements).await else { return Ok(()) };
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

fn change_owner(name: &str, owner: &str) -> String {
    format!("ALTER DATABASE {} OWNER TO {owner}", identifier(name))
}

/// Ends the other sessions in the databases of the plan, for example those of a monitoring system:
/// a database in use cannot be renamed.
async fn end_all_sessions(session: &Session, plan: &RestorePlan) -> Result<()> {
    let names: Vec<&str> = plan
        .databases
        .iter()
        .flat_map(|database| [&database.database.name, &database.staged, &database.replaced])
        .map(String::as_str)
        .collect();
    end_sessions(session, &names).await
}

#[cfg(test)]
mod tests;
