//! Calendar events, systemd.time(7).

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

/// A valid calendar event for `OnCalendar=`. It is only validated: systemd evaluates it, and
/// `systemd-analyze calendar` prints when it next elapses.
///
/// Follows systemd's parser (calendarspec.c), which is stricter than systemd.time(7) suggests:
/// `*/2` is invalid, `0/2` is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar(String);

impl Calendar {
    /// The event as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Calendar {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let event = strip_timezone(text)?;
        ensure!(!event.is_empty(), "there is neither a date nor a time in it");
        if !SHORTHANDS.iter().any(|name| name.eq_ignore_ascii_case(event)) {
            let mut cursor = Cursor { rest: event };
            cursor.weekdays()?;
            if !cursor.date()? {
                cursor.time()?;
            }
            ensure!(cursor.rest.is_empty(), "'{}' is left over at the end", cursor.rest);
        }
        Ok(Self(text.to_owned()))
    }
}

/// systemd's shorthands, in upper or lower case. It still accepts `anually`, a former misspelling.
const SHORTHANDS: [&str; 13] = [
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "annually",
    "yearly",
    "anually",
    "biannually",
    "bi-annually",
    "semiannually",
    "semi-annually",
];

/// Names of weekdays. Long forms come first, because the first matching prefix is used.
const WEEKDAYS: [(&str, u8); 14] = [
    ("Monday", 0),
    ("Mon", 0),
    ("Tuesday", 1),
    ("Tue", 1),
    ("Wednesday", 2),
    ("Wed", 2),
    ("Thursday", 3),
    ("Thu", 3),
    ("Friday", 4),
    ("Fri", 4),
    ("Saturday", 5),
    ("Sat", 5),
    ("Sunday", 6),
    ("Sun", 6),
];

/// systemd's maximum for a component, in microseconds for seconds and in its own unit otherwise.
const COMPONENT_MAX: i64 = i32::MAX as i64;
const MICROSECONDS: i64 = 1_000_000;

/// Removes ` UTC` or the name of a time zone from the end of `text`. A last word that starts with a
/// letter must be a time zone.
fn strip_timezone(text: &str) -> Result<&str> {
    let Some((event, zone)) = text.rsplit_once(' ') else { return Ok(text) };
    if zone.eq_ignore_ascii_case("UTC") {
        return Ok(event);
    }
    if !zone.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(text);
    }
    match jiff::tz::TimeZone::get(zone) {
        // systemd looks for a file with that name, so upper and lower case matter.
        Ok(found) if found.iana_name() == Some(zone) => Ok(event),
        _ => bail!("'{zone}' is not a known time zone"),
    }
}

/// The bounds of a component.
#[derive(Clone, Copy)]
struct Bounds {
    from: i64,
    to: i64,
    /// The component follows a `~`: days are counted back from the end of the month.
    from_end: bool,
}

impl Bounds {
    const fn new(from: i64, to: i64) -> Self {
        Self { from, to, from_end: false }
    }
}

/// One element of a list: `start` or `start..stop`, optionally with `/repeat`.
struct Element {
    start: i64,
    stop: Option<i64>,
    repeat: i64,
}

/// The list of a component; `None` for `*`.
type Chain = Option<Vec<Element>>;

/// The rest of the text that is still to be parsed.
struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    /// Skips `token`, if the rest starts with it, and returns whether it does.
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Whether the rest is empty or starts with a character of `any`.
    fn at(&self, any: &str) -> bool {
        self.rest.chars().next().is_none_or(|c| any.contains(c))
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    /// Parses the optional list of weekdays.
    fn weekdays(&mut self) -> Result<()> {
        let mut range_from: Option<u8> = None;
        let mut first = true;
        loop {
            let found = WEEKDAYS.iter().find(|(name, _)| {
                self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            });
            let Some((name, number)) = found else {
                ensure!(first, "'{}' is not a day of the week", self.rest);
                return Ok(());
            };
            self.rest = self.rest.get(name.len()..).unwrap_or_default();
            ensure!(self.at("-., "), "'{name}{}' is not a day of the week", self.rest);
            if let Some(from) = range_from {
                ensure!(
                    from <= *number,
                    "a range of days must not run backwards (the week starts with Monday)"
                );
            }
            if self.rest.is_empty() || self.rest.starts_with(' ') {
                self.skip_spaces();
                return Ok(());
            }
            if self.eat(",") {
                range_from = None;
            } else {
                ensure!(
                    range_from.is_none() && (self.eat("..") || self.eat("-")),
                    "a range of days is written Mon..Fri"
                );
                range_from = Some(*number);
            }
            if self.at(" ") {
                ensure!(range_from.is_none(), "a range of days has no end");
                self.skip_spaces();
                return Ok(());
            }
            first = false;
        }
    }

    /// Parses the optional date. Returns true if no time may follow (`@SECONDS`).
    fn date(&mut self) -> Result<bool> {
        if let Some(seconds) = self.rest.strip_prefix('@') {
            ensure!(
                !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit()),
                "'@' takes seconds since 1970"
            );
            // The year has the same limit as in a date, see below.
            ensure!(
                seconds.parse::<i64>().is_ok_and(|seconds| seconds < 7_258_118_400),
                "'@{seconds}' is after the year 2199"
            );
            self.rest = "";
            return Ok(true);
        }
        if self.rest.is_empty() {
            return Ok(false);
        }
        let before = self.rest;
        let first = self.chain(false)?;
        if self.at(":") {
            // The number was the hour of a time.
            self.rest = before;
            return Ok(false);
        }
        let mut from_end = self.date_separator()?;
        let second = self.chain(false)?;
        let (year, month, day) = if self.at(" ") {
            (None, first, second)
        } else {
            ensure!(!from_end, "'~' stands between month and day only");
            from_end = self.date_separator()?;
            let third = self.chain(false)?;
            ensure!(self.at(" "), "'{}' is left over after the date", self.rest);
            (first, second, third)
        };
        self.skip_spaces();
        ensure_valid(
            "year",
            year.map(|chain| chain.into_iter().map(four_digits).collect()),
            Bounds::new(1970, 2199),
        )?;
        ensure_valid("month", month, Bounds::new(1, 12))?;
        ensure_valid("day", day, Bounds { from_end, ..Bounds::new(1, 31) })?;
        Ok(false)
    }

    /// Parses `-` or `~` between the components of a date. Returns true for `~`.
    fn date_separator(&mut self) -> Result<bool> {
        if self.eat("~") {
            return Ok(true);
        }
        ensure!(self.eat("-"), "'{}' stands where a date has '-'", self.rest);
        Ok(false)
    }

    /// Parses the optional time.
    fn time(&mut self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        ensure_valid("hour", self.chain(false)?, Bounds::new(0, 23))?;
        ensure!(self.eat(":"), "a time is written HH:MM or HH:MM:SS");
        ensure_valid("minute", self.chain(false)?, Bounds::new(0, 59))?;
        if self.rest.is_empty() {
            return Ok(());
        }
        ensure!(self.eat(":"), "a time is written HH:MM or HH:MM:SS");
        ensure_valid("second", self.chain(true)?, Bounds::new(0, 60 * MICROSECONDS - 1))
    }

    /// Parses a list of elements. `seconds`: the component is seconds, which may have fractions.
    fn chain(&mut self, seconds: bool) -> Result<Chain> {
        if self.eat("*") {
            return Ok(None);
        }
        let mut elements = Vec::new();
        loop {
            elements.push(self.element(seconds)?);
            // systemd's limit.
            ensure!(elements.len() <= 240, "more than 240 values in one list");
            if !self.eat(",") {
                return Ok(Some(elements));
            }
        }
    }

    fn element(&mut self, seconds: bool) -> Result<Element> {
        let start = self.number(seconds)?;
        let mut element = Element { start, stop: None, repeat: 0 };
        if self.eat("..") {
            element.stop = Some(self.number(seconds)?);
            element.repeat = if seconds { MICROSECONDS } else { 1 };
        }
        if self.eat("/") {
            element.repeat = self.number(seconds)?;
            ensure!(element.repeat != 0, "a step of 0 never advances");
        } else if let Some(stop) = element.stop {
            ensure!(
                !seconds || start + element.repeat <= stop,
                "a range below one second needs a step"
            );
        }
        ensure!(self.at(" ,-~:"), "'{}' does not belong into a number", self.rest);
        Ok(element)
    }

    fn number(&mut self, seconds: bool) -> Result<i64> {
        let digits = self.digits();
        ensure!(!digits.is_empty(), "'{}' stands where a number or '*' is expected", self.rest);
        let unit = if seconds { MICROSECONDS } else { 1 };
        let Some(mut value) = digits
            .parse::<i64>()
            .ok()
            .filter(|value| *value <= COMPONENT_MAX / unit)
            .map(|value| value * unit)
        else {
            bail!("'{digits}' is too large");
        };
        // `..` starts a range, not a fraction.
        if seconds && self.rest.starts_with('.') && !self.rest.starts_with("..") {
            self.rest = self.rest.get(1..).unwrap_or_default();
            let fraction = self.digits();
            ensure!(!fraction.is_empty(), "'.' without digits after it");
            let mut digit_unit = unit;
            for (place, digit) in fraction.bytes().map(|b| i64::from(b - b'0')).enumerate() {
                digit_unit /= 10;
                // The seventh digit rounds the value, and later digits are ignored.
                value += if place == 6 { i64::from(digit >= 5) } else { digit * digit_unit };
            }
        }
        Ok(value)
    }

    fn digits(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.to_owned()
    }
}

/// Converts years of two digits to 1970 to 2069, as systemd does.
fn four_digits(element: Element) -> Element {
    let fix = |year| match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        _ => year,
    };
    Element { start: fix(element.start), stop: element.stop.map(fix), ..element }
}

/// Fails unless all values of the component `name` are within its bounds.
fn ensure_valid(name: &str, chain: Chain, bounds: Bounds) -> Result<()> {
    let Bounds { from, to, from_end } = bounds;
    // Counted from the end of the month, only the days that every month has are valid.
    let to = if from_end { to - 3 } else { to };
    let unit = if to >= MICROSECONDS { MICROSECONDS } else { 1 };
    for Element { start, stop, mut repeat } in chain.unwrap_or_default() {
        let range = from..=to;
        ensure!(
            range.contains(&start),
            "the {name} must be between {} and {}",
            from / unit,
            to / unit
        );
        // Like systemd, move the end of the range to the last value of the step; a range of a
        // single value becomes that value.
        let stop = stop.map(|stop| {
            if stop > start && repeat > 0 { stop - (stop - start) % repeat } else { stop }
        });
        if stop == Some(start) {
            repeat = 0;
        }
        let stop = stop.filter(|stop| *stop != start);
        ensure!(repeat <= to - from, "the step of the {name} is longer than its range");
        match stop {
            Some(stop) => {
                ensure!(
                    range.contains(&stop),
                    "the {name} must be between {} and {}",
                    from / unit,
                    to / unit
                );
                ensure!(start + repeat <= stop, "a range of the {name} must not run backwards");
            }
            None if from_end => {
                ensure!(start - repeat >= from, "the step of the {name} leaves the month at once")
            }
            None => ensure!(
                start + repeat <= to,
                "the step of the {name} is longer than what is left of its range"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn systemd_accepts(event: &str) -> bool {
        std::process::Command::new("systemd-analyze")
            .args(["calendar", "--", event])
            .output()
            .expect("systemd-analyze must be installed: it is what calendars are compared with")
            .status
            .success()
    }

    /// Events, and whether they are valid.
    const TABLE: &[(&str, bool)] = &[
        ("*-*-* 02:30:00", true),
        ("minutely", true),
        ("Daily", true),
        ("bi-annually", true),
        ("semi-annually", true),
        ("anually", true),
        ("fortnightly", false),
        ("daily UTC", true),
        ("UTC", false),
        (" UTC", false),
        ("", false),
        (" ", false),
        ("*:0/2", true),
        ("*/2:00", false),
        ("*:*:*/2", false),
        ("*:*:1..1/5", true),
        ("*:*:0..0.5", false),
        ("*:*:0.1..0.5/0.1", true),
        ("5..5/7:00", true),
        ("5..6/30:00", true),
        ("5..4:00", false),
        ("*:*:0..0", false),
        ("*:*:0..1", true),
        ("*-*~1/5 00:00", false),
        ("*-*~03", true),
        ("*-02~03/1", true),
        ("*~02-03", false),
        ("Mon *-05~07/1", true),
        ("Mon..Fri,", true),
        ("Fri..Mon", false),
        ("Mon-Fri 5:00", true),
        ("Mon..Mon", true),
        ("Mon..", false),
        ("Mon..Tue..Wed", false),
        ("monday,SUN 5:00", true),
        ("Mond 5:00", false),
        ("Mon,xyz 5:00", false),
        ("Thu,Fri 2012-*-1,5 11:12:13", true),
        ("Mon 5:00 Europe/Berlin", true),
        ("5:00 europe/berlin", false),
        ("5:00 Europe/Nowhere", false),
        ("5:00 utc", true),
        ("5:00  UTC", false),
        ("5:00 Mon", false),
        ("5:00Z", false),
        ("2012-10-15T5:00", false),
        ("5:00 ", false),
        (" 5:00", false),
        ("@0", true),
        ("@1 UTC", true),
        ("@", false),
        ("@-1", false),
        ("@1.5", false),
        ("@7258118399", true),
        ("@7258118400", false),
        ("70-1-1", true),
        ("1000-1-1", false),
        ("2199/2-*-*", false),
        ("*-31-1", false),
        ("*~28", true),
        ("*~29", false),
        ("*-02~30 10:00", false),
        ("1..12/3-1", true),
        ("2012-10-15 ", true),
        ("5:00:60", false),
        ("24:00", false),
        ("5:60", false),
        ("0:0:59.9999994", true),
        ("0:0:59.9999995", false),
        ("0:0:1.", false),
        ("0/30:00", false),
        ("0/23:00", true),
        ("0/24:00", false),
        ("23/1:00", false),
        ("0/0:00", false),
        ("5:00\n", false),
        ("5:00é", false),
        ("99999999999:00", false),
        ("0:0:2148", false),
        ("5", false),
        ("5:", false),
        ("*:*:*", true),
        ("*-*-*", true),
        ("*", false),
    ];

    #[test]
    fn accepts_the_same_events_as_systemd() {
        for (event, taken) in TABLE {
            assert_eq!(systemd_accepts(event), *taken, "the table itself: {event:?}");
            assert_eq!(
                event.parse::<Calendar>().is_ok(),
                *taken,
                "{event:?}: {:?}",
                event.parse::<Calendar>()
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_systemd_on_random_events(
            event in "((Mon|tue|Wednesday|Sat)(\\.\\.|,|-| \
                      ){1,2}){0,2}((\\*|19[67][09]|20[0-9]{2}|[0-9]{1,2})(-|~))?((\\*|[0-9]{1,2}|1/[1-4]|2\\.\\.[1-9])(-|~)(\\*|[0-3]?[0-9]|[1-9]/[1-9]|1,2) )?(\\*|[0-2]?[0-9]|0/[1-9]|1\\.\\.[0-9]/[0-3]):(\\*|[0-6]?[0-9]|0/15)(:(\\*|[0-9]{1,2}(\\.[0-9]{0,8})?|[0-9]\\.\\.[0-9](/[0-9])?))?( UTC| Europe/Rome| Rome)?"
        ) {
            prop_assert_eq!(event.parse::<Calendar>().is_ok(), systemd_accepts(&event), "{:?}: {:?}", event, event.parse::<Calendar>());
        }

        #[test]
        fn never_panics(event in "\\PC*") {
            let _ = event.parse::<Calendar>();
        }
    }
}
