//! The events that the service manager sends.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::Summary;

/// One event. The ids of jobs increase, and jobs that are queued together have consecutive ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job was queued, or has ended.
    Job(JobEvent),
    /// The state of a unit has changed.
    Changed {
        /// The unit.
        unit: String,
        /// The new state.
        now: Summary,
    },
    /// Events may have been lost: the connection was interrupted, or the manager was restarted.
    Missed,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// The job was queued.
    New {
        /// The id of the job.
        id: u32,
        /// The unit.
        unit: String,
    },
    /// The job ended.
    Removed {
        /// The id of the job.
        id: u32,
        /// The unit.
        unit: String,
        /// The result: `done`, `canceled`, `failed`, `dependency`, `skipped`, …
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

/// A stream of events, in their order.
pub struct Events(UnboundedReceiver<Event>);

impl Events {
    /// Creates a sender and the stream of what it sends.
    pub fn channel() -> (UnboundedSender<Event>, Self) {
        let (sender, receiver) = unbounded_channel();
        (sender, Self(receiver))
    }

    /// The next event that has arrived already.
    pub fn ready(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// Waits for the next event, for `patience` at most. Also waits that long if the sender is
    /// gone.
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
