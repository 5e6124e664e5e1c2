//! The commands, one file for each.

pub mod check;
mod follow;
pub mod generate;
pub mod helper;
pub mod init;
pub mod install;
pub mod key;
pub mod list;
pub mod manual;
pub mod prune;
pub mod restore;
pub mod run;
pub mod status;
pub mod verify;
