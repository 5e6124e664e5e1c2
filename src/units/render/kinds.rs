//! The templates that backup and restore share.

use askama::Template;

use super::Sandbox;
use crate::units::text::Text;

#[derive(Template)]
#[template(path = "timer.timer")]
pub struct Timer {
    pub description: Text,
    pub calendar: Text,
    pub randomized_delay: Text,
    pub unit: Text,
}

#[derive(Template)]
#[template(path = "entry.target")]
pub struct EntryTarget {
    pub description: &'static str,
    pub run: Text,
}

#[derive(Template)]
#[template(path = "run.service")]
pub struct Run {
    pub description: &'static str,
    pub target: Text,
    pub requires: Text,
    pub execute: Text,
    pub conclude: Text,
    /// Units that are started with it but not required.
    pub wants: Option<Text>,
    pub silence: bool,
    pub report: bool,
    pub sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "bracket.service")]
pub struct Bracket {
    pub description: &'static str,
    pub begin: Text,
    pub end: Text,
    pub credentials: Vec<Text>,
    pub sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "pause.service")]
pub struct Pause {
    pub description: &'static str,
    pub run: Text,
    pub begin: Text,
    pub end: Text,
    pub sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "window.service")]
pub struct WindowService {
    pub description: &'static str,
    /// A comment for the reader of the unit file.
    pub note: Option<Text>,
    /// The units that the window stops; `None` if its helper freezes the writers instead.
    pub writers: Option<Text>,
    pub thaw: Option<Text>,
    pub run: Text,
    pub pause: Text,
    pub deadline: Option<Text>,
    pub exec: Text,
    pub timeout: Text,
    pub sandbox: Sandbox,
}

#[derive(Template)]
#[template(path = "stage.target")]
pub struct StageTarget {
    pub description: &'static str,
    pub members: Text,
    pub window: Option<Text>,
}
