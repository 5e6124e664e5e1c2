//! What the service manager tells by itself.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::Summary;

/// One thing that happened. Numbers of jobs grow, and what is queued together has numbers side by
/// side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job was queued, or has ended.
    Job(JobEvent),
    /// A unit is doing something else now.
    Changed {
        /// The unit.
        unit: String,
        /// What it is doing.
        now: Summary,
    },
    /// The connection was lost, or the manager was started again: anything may have happened.
    Missed,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// It was queued for the unit.
    New {
        /// Its number.
        id: u32,
        /// The unit.
        unit: String,
    },
    /// It ended.
    Removed {
        /// Its number.
        id: u32,
        /// The unit.
        unit: String,
        /// How: `done`, `canceled`, `failed`, `dependency`, `skipped`, …
        result: String,
    },
}

impl JobEvent {
    /// The job's unit.
    pub fn unit(&self) -> &str {
        match self {
            Self::New { unit, .. } | Self::Removed { unit, .. } => unit,
        }
    }
}

/// The events since these were asked for, in their order.
pub struct Events(UnboundedReceiver<Event>);

impl Events {
    /// A receiver, and what fills it.
    pub fn channel() -> (UnboundedSender<Event>, Self) {
        let (sender, receiver) = unbounded_channel();
        (sender, Self(receiver))
    }

    /// The next event that has come already.
    pub fn ready(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next event; none if there is none for so long. Waits just as long where nobody tells
    /// anything any more.
    pub async fn next(&mut self, patience: Duration) -> Option<Event> {
        let next = async {
            match self.0.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            }
        };
        timeout(patience, next).await.ok()
    }
}
