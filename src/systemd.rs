//! systemd over D-Bus: just the calls that this project needs, and an answer for each that says
//! what really happened.
//!
//! Knows nothing of backups. Everything learned about jobs, results and lost connections is behind
//! [`Manager`].

mod closure;
mod journal;
mod later;
mod manager;
pub mod notify;
mod origin;
mod proxy;
mod state;

pub use closure::{
    Paused, STARTED_ALONG, STOP_MARKS, running, stop_closure, stop_mark, stopped_along,
};
pub use journal::{Level, last_lines, send};
pub use later::start_later;
pub use manager::{JobEvent, Jobs, Manager};
pub use origin::origin;
pub use state::{ActiveState, UnitState, monotonic_micros};
