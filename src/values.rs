//! Value types: each can only be built holding what its field may hold, so that no later stage checks it again.

mod calendar;
mod run_id;
mod secret;
mod timespan;
mod unit_name;

pub use calendar::Calendar;
pub use run_id::RunId;
pub use secret::SecretSource;
pub use timespan::Timespan;
pub use unit_name::UnitName;
