//! Value types: each can only be built holding what its field may hold, so that no later stage
//! checks it again.

mod ago;
mod calendar;
pub mod raw_path;
mod run_id;
mod secret;
mod timespan;
mod unit_name;

pub use ago::{ago, dated};
pub use calendar::Calendar;
pub use raw_path::RawPath;
pub use run_id::RunId;
pub use secret::SecretSource;
pub use timespan::Timespan;
pub use unit_name::UnitName;

/// Whether Unicode sets `c` aside as no character at all: systemd takes a text with one for not
/// being UTF-8.
pub fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}
