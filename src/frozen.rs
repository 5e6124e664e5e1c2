//! The frozen view: the files as they were in the window, whatever froze them.
//!
//! Every method ends in the same thing: a [`View`], entries with their original path, their
//! metadata as of the window, and where their content is now: a mounted snapshot, a clone or a copy
//! in staging, or the first pass, when nothing changed since. The store archives a view with GitLab
//! up and knows nothing of how it came about.

mod entry;
mod exclude;
mod staging;
mod tree;
mod view;
mod walk;

pub use entry::{Attribute, Content, Entry, Extra, Stat, Time};
pub use exclude::Exclude;
pub use staging::{How, Staging, open, place};
pub use tree::{Entries, Tree};
pub use view::{At, Devices, Root, View};
pub use walk::{Skipped, Walk, settled};
