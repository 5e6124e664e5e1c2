//! A few attempts, with pauses, within a limit: monitoring must neither be missed for a hiccup nor
//! hold up anybody.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{sleep, timeout};

/// Before the second and the third attempt.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// For all attempts together.
const LIMIT: Duration = Duration::from_secs(45);

/// Nobody was there to answer, as opposed to having said no.
#[derive(Debug)]
pub(super) struct Away(pub(super) String);

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Away {}

/// Does `what` again while nobody answers; a refusal is final.
pub async fn patiently<T, F: Future<Output = Result<T>>>(what: impl Fn() -> F) -> Result<T> {
    match timeout(LIMIT, with_pauses(PAUSES, what)).await {
        Ok(result) => result,
        Err(_) => bail!("gave up after {LIMIT:?}"),
    }
}

async fn with_pauses<T, F: Future<Output = Result<T>>>(
    pauses: [Duration; 2],
    what: impl Fn() -> F,
) -> Result<T> {
    let mut pauses = pauses.into_iter();
    loop {
        let error = match what().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match pauses.next() {
            Some(pause) if error.downcast_ref::<Away>().is_some() => {
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
    async fn only_who_did_not_answer_is_asked_again() {
        for (away, expected) in [(true, 3), (false, 1)] {
            let asked = Cell::new(0);
            let result: Result<()> = with_pauses([Duration::ZERO; 2], || async {
                asked.set(asked.get() + 1);
                let error = if away {
                    anyhow::Error::new(Away("nobody".into()))
                } else {
                    anyhow::anyhow!("no")
                };
                Err(error).context("a step on the way")
            })
            .await;
            assert!(result.is_err());
            assert_eq!(asked.get(), expected);
        }
    }
}
