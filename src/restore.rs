//! A restore: every store stages the new beside the old with nothing live changed, then all of it is
//! put in place. One file per unit; what they do for each store is the store's own
//! ([`Restoration`](crate::stores::Restoration)).

mod dumps;
mod finish;
mod guard;
mod preflight;
mod switch;
mod undo;

use anyhow::Result;

use crate::host::own;
use crate::paths;

pub use dumps::dumps;
pub use finish::finish;
pub use guard::guard;
pub use preflight::preflight;
pub use switch::switch;
pub use undo::{undo, unstage};

/// Creates the directory of what outlives a restore that dies.
pub fn begin() -> Result<()> {
    own::make_closed(paths::RESTORE)
}
