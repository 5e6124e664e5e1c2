//! A few attempts within a time limit: a short outage of a monitoring system must not lose a
//! request, and a long one must not delay the run.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{sleep, timeout};

/// Pauses before the second and the third attempt.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Time limit of all attempts together.
const LIMIT: Duration = Duration::from_secs(45);

/// The server is unreachable: worth a retry, unlike a refusal.
#[derive(Debug)]
pub(super) struct Unreachable(pub(super) String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// Sends a request up to three times, until the server answers. Any answer is final, also a
/// refusal.
pub async fn retry_unreachable<T, F: Future<Output = Result<T>>>(
    request: impl Fn() -> F,
) -> Result<T> {
    match timeout(LIMIT, retry_with_pauses(PAUSES, request)).await {
        Ok(result) => result,
        Err(_) => bail!("gave up after {LIMIT:?}"),
    }
}

async fn retry_with_pauses<T, F: Future<Output = Result<T>>>(
    pauses: [Duration; 2],
    request: impl Fn() -> F,
) -> Result<T> {
    let mut pauses = pauses.into_iter();
    loop {
        let error = match request().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match pauses.next() {
            Some(pause) if error.downcast_ref::<Unreachable>().is_some() => {
                tracing::debug!("{error:#}: trying again");
                sleep(pause).await;
            }
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::Context;

    use super::*;

    #[tokio::test]
    async fn only_an_unreachable_server_is_asked_again() {
        for (unreachable, expected) in [(true, 3), (false, 1)] {
            let attempts = Cell::new(0);
            let result: Result<()> = retry_with_pauses([Duration::ZERO; 2], || async {
                attempts.set(attempts.get() + 1);
                let error = if unreachable {
                    anyhow::Error::new(Unreachable("nobody".into()))
                } else {
                    anyhow::anyhow!("no")
                };
                Err(error).context("a step on the way")
            })
            .await;
            assert!(result.is_err());
            assert_eq!(attempts.get(), expected);
        }
    }
}
