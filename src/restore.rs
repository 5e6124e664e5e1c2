//! The steps of a restore, one file for each unit: every store stages the new data beside the live
//! data, and then all stores replace the live data together. Each store does its side by its
//! [`Restoration`](crate::stores::Restoration).

mod dumps;
mod finish;
mod guard;
mod preflight;
mod switch;
mod undo;

use anyhow::Result;

use crate::host::own;
use crate::paths::{self, RootDirectory};

pub use dumps::extract_dumps;
pub use finish::finish;
pub use guard::guard;
pub use preflight::preflight;
pub use switch::{ensure_loaded, switch};
pub use undo::{undo, unstage};

/// Creates the directory of the journal, which survives a crash of the restore and a reboot.
pub fn begin(root: &RootDirectory) -> Result<()> {
    own::make_closed(root.at(paths::RESTORE))
}
