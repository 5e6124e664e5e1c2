//! systemd over D-Bus: the calls that this program needs.
//!
//! Knows nothing of backups. [`ServiceManager`] hides jobs, results and lost connections;
//! [`Manager`] implements it for the host's systemd.

mod bus;
pub mod cgroup;
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
pub use journal::{HostJournal, Journal, Level};
pub use later::start_later;
pub use manager::Manager;
pub use origin::origin;
pub use service_manager::{Mode, ServiceManager, Summary};
pub use state::{ActiveState, UnitState};
pub use view::UnitView;
