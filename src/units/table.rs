//! Finds the row of each unit. A unit without a row does not compile.

use std::fmt;

use super::row::Row;
use super::rows::{capture, deadline, entry, gates, hold, monitoring, prepare, proxies, restore};
use super::rows::{stages, step, store, verify};
use super::unit::{backup_units, restore_units};
use super::{Restore, Unit};

macro_rules! rows {
    (
        $(#[$about:meta])*
        $kind:ident {
            $($(#[$plain_about:meta])* $plain:ident => $row:expr,)*
            $(; $(
                $(#[$named_about:meta])*
                $named:ident($given:ident: $type:ty) => $named_row:expr,
            )*)?
        }
    ) => {
        impl $kind {
            /// The description of the unit.
            pub(super) fn row(&self) -> &'static Row {
                match self {
                    $(Self::$plain => &$row,)*
                    $($(Self::$named($given) => $named_row,)*)?
                }
            }
        }
    };
}

backup_units!(rows);
restore_units!(rows);

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.row().name;
        match self {
            Self::Step(given) | Self::Proxy(given) => f.write_str(&name.replace("{}", given)),
            _ => {
                debug_assert!(!name.contains("{}"), "{name} is the name of several units");
                f.write_str(name)
            }
        }
    }
}
