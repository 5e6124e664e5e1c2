//! Parts of the program with the real programs around them: restic, git, strace, file systems.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod archives;
mod cli;
mod confined;
mod durable;
mod exclude;
mod frozen;
#[path = "../memory/mod.rs"]
mod memory;
mod quick_repository;
mod repository;
mod retention;
#[path = "../sizes/mod.rs"]
mod sizes;
mod transfers;
