//! A directory with what a restore has replaced, and what becomes of it where it cannot be removed.

use crate::host::beneath::Held;
use crate::host::identity::Account;
use crate::runs::restore::{Leftover, Thing};

/// Removes a directory with the rights of `account`, or root's. Returns what is left of it.
pub(super) fn remove(held: &Held, account: Option<Account>) -> Option<Leftover> {
    let removed = match account {
        Some(account) => account.act(|| held.remove()),
        None => held.remove(),
    };
    let why = format!("{:#}", removed.err()?);
    Some(Leftover { thing: directory(held, account), why, by_hand: false })
}

/// Tries again to remove what an earlier restore left. Returns it if it is still there.
pub(crate) fn again(
    held: &Held,
    account: Option<Account>,
    leftover: &Leftover,
) -> Option<Leftover> {
    if !leftover.by_hand {
        return remove(held, account);
    }
    // Until the admin has removed it.
    let is_gone = held.open_if_there().is_ok_and(|found| found.is_none());
    (!is_gone).then(|| leftover.clone())
}

/// Leaves a directory to the admin: it has something that exists nowhere else.
pub(super) fn keep(held: &Held, why: String) -> Leftover {
    Leftover { thing: directory(held, None), why, by_hand: true }
}

fn directory(held: &Held, account: Option<Account>) -> Thing {
    Thing::Directory { held: held.clone(), account }
}
