//! Removes the directories of a finished restore, and records those that cannot be removed.

use crate::host::beneath::KnownDirectory;
use crate::host::identity::Account;
use crate::runs::restore::{Leftover, Thing};

/// Removes a directory with the rights of `account`, or of root if there is none. Returns it as a
/// leftover if that fails.
pub(super) fn remove(held: &KnownDirectory, account: Option<Account>) -> Option<Leftover> {
    let removed = match account {
        Some(account) => account.act(|| held.remove()),
        None => held.remove(),
    };
    let why = format!("{:#}", removed.err()?);
    Some(Leftover { thing: directory(held, account), why, by_hand: false })
}

/// Tries again to remove the leftover of an earlier restore. Returns it if it is still there.
pub(crate) fn retry(
    held: &KnownDirectory,
    account: Option<Account>,
    leftover: &Leftover,
) -> Option<Leftover> {
    if !leftover.by_hand {
        return remove(held, account);
    }
    // Only the admin may remove it.
    let is_gone = held.open_if_there().is_ok_and(|found| found.is_none());
    (!is_gone).then(|| leftover.clone())
}

/// Leaves a directory to the admin: it holds data that exists nowhere else.
pub(super) fn keep(held: &KnownDirectory, why: String) -> Leftover {
    Leftover { thing: directory(held, None), why, by_hand: true }
}

fn directory(held: &KnownDirectory, account: Option<Account>) -> Thing {
    Thing::Directory { held: held.clone(), account }
}
