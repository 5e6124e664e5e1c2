//! The names of systemd's objects on the bus, org.freedesktop.systemd1(5).

use zbus::OwnedObjectPath;

/// The interface of every unit.
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";
pub(super) const TIMER: &str = "org.freedesktop.systemd1.Timer";
const UNITS: &str = "/org/freedesktop/systemd1/unit/";

/// The object of a unit. A call to it loads the unit if necessary.
pub(super) fn of(unit: &str) -> zbus::Result<OwnedObjectPath> {
    let mut path = UNITS.to_owned();
    for (at, byte) in unit.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => path.push(char::from(byte)),
            b'0'..=b'9' if at > 0 => path.push(char::from(byte)),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    OwnedObjectPath::try_from(path)
}

/// The unit of an object; none if the object is not a unit.
pub(super) fn unit(path: &str) -> Option<String> {
    let mut bytes = path.strip_prefix(UNITS)?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'_' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_convert_both_ways() {
        for name in ["gitlab-puma.service", "1und1@2.service", "größe_.mount"] {
            let path = of(name).unwrap();
            assert_eq!(unit(path.as_str()).as_deref(), Some(name));
        }
        assert_eq!(of("1a-b.c").unwrap().as_str(), "/org/freedesktop/systemd1/unit/_31a_2db_2ec");
        assert_eq!(unit("/org/freedesktop/systemd1/job/7"), None);
    }
}
