//! One file per verb.

pub mod generate;
pub mod helper;
pub mod install;
pub mod list;
pub mod prune;
pub mod run;
pub mod status;
