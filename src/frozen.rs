//! The frozen view: the files as they were in the window, whatever method captured them.
//!
//! Every method produces a [`View`]: entries with their original path, their metadata as of the
//! window, and the place of their content, which is a mounted snapshot, a clone or a copy in
//! staging, or the snapshot of the first pass if the file is unchanged since. The store step
//! archives a view while GitLab is up, independently of the method.

mod entry;
mod exclude;
mod staging;
mod tree;
mod view;
mod walk;

pub use entry::{Attribute, Content, Entry, Extra, Stat, Time};
pub use exclude::Exclude;
pub use staging::{How, Staging, open, plan_clone_directory};
pub use tree::{Entries, Tree};
pub use view::{At, Devices, View, ViewRoot};
pub use walk::{Skipped, Walk, settled};
