//! systemd over D-Bus: just the calls that this project needs, and an answer for each that says
//! what really happened.
//!
//! Knows nothing of backups. Everything learned about jobs, results and lost connections is behind
//! [`ServiceManager`]; [`Manager`] is the one of the host.

mod bus;
mod closure;
mod events;
mod journal;
mod later;
mod manager;
pub mod notify;
mod origin;
mod path;
mod proxy;
mod service_manager;
mod signals;
mod state;
mod view;

pub use closure::{
    Paused, STARTED_ALONG, STOP_MARKS, running, stop_closure, stop_mark, stopped_along,
};
pub use events::{Event, Events, JobEvent};
pub use journal::{HostJournal, Journal, Level, last_lines};
pub use later::start_later;
pub use manager::Manager;
pub use origin::origin;
pub use service_manager::{Mode, ServiceManager, Summary};
pub use state::{ActiveState, UnitState};
pub use view::UnitView;
