//! Stops, holds or freezes GitLab, and brings it back: the programs of the units of a window.

pub mod drain;
pub mod freeze;
pub mod hold;
pub mod pause;
pub mod proxy;
pub mod readiness;
mod restored;
pub mod resume;
pub mod strangers;
pub mod transfers;
pub mod window;
