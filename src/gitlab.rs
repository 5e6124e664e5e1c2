//! GitLab down and up again: what the units of a window execute.

pub mod freeze;
pub mod pause;
pub mod proxy;
pub mod readiness;
mod restored;
pub mod resume;
pub mod strangers;
pub mod window;
