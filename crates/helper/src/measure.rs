//! Helpers for tests: polling with a deadline, and measuring times.

use std::fmt::{self, Display};
use std::future::Future;
use std::time::{Duration, Instant};

/// The first pause between two checks. Each pause is twice the previous one, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The condition of [`wait_until`] was not met before the deadline. The message has the condition, the time waited, and the last result.
///
/// ```
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let never = kapsel_testdb::wait_until("the worker is ready", Duration::ZERO, async || Err::<(), _>("it starts"));
/// let error = never.await.unwrap_err();
/// assert!(error.to_string().ends_with("waiting until the worker is ready; last result: it starts"), "{error}");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("timed out after {waited:.1?} waiting until {what}; last result: {last}")]
pub struct NotInTime {
    what: String,
    waited: Duration,
    last: String,
}

/// Polls until `check` returns `Ok`, and returns its value: a service is ready, or a worker has written a row. `what` completes "waiting
/// until" in the error. An `Err` of `check` describes what is still missing. The pauses grow from 1 ms to 50 ms. `deadline` is the time
/// from now; when it is over, a running `check` is cancelled.
///
/// ```no_run
/// use std::time::Duration;
///
/// # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let delivered = kapsel_testdb::wait_until("all is delivered", Duration::from_secs(5), async || {
///     let counts = sqlx::query_as::<_, (i64, i64)>("SELECT count(*) FILTER (WHERE delivered), count(*) FROM events");
///     match counts.fetch_one(&pool).await.map_err(|error| error.to_string())? {
///         (delivered, all) if delivered == all => Ok(delivered),
///         (delivered, all) => Err(format!("{delivered} of {all}")),
///     }
/// });
/// let delivered = delivered.await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`NotInTime`] after the deadline. It names `what` and the last `Err` of `check`.
pub async fn wait_until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, NotInTime> {
    let begun = Instant::now();
    let mut last = "the first check did not finish".to_owned();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, check()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(missing)) => last = missing.to_string(),
            Err(_) => {}
        }
        if begun.elapsed() >= deadline {
            return Err(NotInTime {
                what: what.to_owned(),
                waited: begun.elapsed(),
                last,
            });
        }
        tokio::time::sleep(pause.min(deadline.saturating_sub(begun.elapsed()))).await;
        pause = (2 * pause).min(MAX_PAUSE);
    }
}

/// Runs an operation once and measures its time. The result prints as `import took 12.3ms`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let import = kapsel_testdb::measure("import", async { 6 * 7 }).await;
/// println!("{import}");
/// assert_eq!(import.value, 42);
/// # }
/// ```
pub async fn measure<T>(name: &str, operation: impl Future<Output = T>) -> Measured<T> {
    let begun = Instant::now();
    let value = operation.await;
    Measured {
        name: name.to_owned(),
        elapsed: begun.elapsed(),
        value,
    }
}

/// The value that an operation returned, and its time, from [`measure`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let import = kapsel_testdb::measure("import", async { Ok::<_, String>(3) }).await;
/// println!("{import}, which is {} s", import.elapsed.as_secs_f64());
/// assert_eq!(import.value, Ok(3));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Measured<T> {
    /// The name of the operation.
    pub name: String,
    /// Wall-clock time, including all waiting, from [`Instant`].
    pub elapsed: Duration,
    /// The value that the operation returned.
    pub value: T,
}

impl<T> Display for Measured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} took {:.1?}", self.name, self.elapsed)
    }
}

/// Runs an operation `times` times, one after the other, at least once, and measures each execution.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let times = kapsel_testdb::measure_times("addition", 100, async || { std::hint::black_box(6 * 7); }).await;
/// println!("{times}: {:.0} per second", times.per_second());
/// assert!(times.median() <= times.longest());
/// # }
/// ```
pub async fn measure_times(name: &str, times: usize, mut operation: impl AsyncFnMut()) -> Times {
    let mut sorted = Vec::with_capacity(times.max(1));
    for _ in 0..times.max(1) {
        let begun = Instant::now();
        operation().await;
        sorted.push(begun.elapsed());
    }
    sorted.sort_unstable();
    Times {
        name: name.to_owned(),
        sorted,
    }
}

/// The wall-clock times of an operation's executions, from [`measure_times`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let times = kapsel_testdb::measure_times("addition", 10, async || { std::hint::black_box(6 * 7); }).await;
/// assert!(times.to_string().starts_with("addition took "), "{times}");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Times {
    name: String,
    sorted: Vec<Duration>,
}

impl Times {
    /// The shortest time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let times = kapsel_testdb::measure_times("addition", 10, async || { std::hint::black_box(6 * 7); }).await;
    /// assert!(times.shortest() <= times.median());
    /// # }
    /// ```
    pub fn shortest(&self) -> Duration {
        self.sorted[0]
    }

    /// The median time: half of the executions took at most this long. Of an even number, the lower of the two middle times.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let times = kapsel_testdb::measure_times("addition", 10, async || { std::hint::black_box(6 * 7); }).await;
    /// println!("half of them took at most {:?}", times.median());
    /// # }
    /// ```
    pub fn median(&self) -> Duration {
        self.sorted[(self.sorted.len() - 1) / 2]
    }

    /// The longest time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let times = kapsel_testdb::measure_times("addition", 10, async || { std::hint::black_box(6 * 7); }).await;
    /// assert!(times.longest() < std::time::Duration::from_secs(60));
    /// # }
    /// ```
    pub fn longest(&self) -> Duration {
        self.sorted[self.sorted.len() - 1]
    }

    /// Executions per second, one after the other: their number divided by the sum of their times.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let times = kapsel_testdb::measure_times("addition", 10, async || { std::hint::black_box(6 * 7); }).await;
    /// assert!(times.per_second() > 0.0);
    /// # }
    /// ```
    pub fn per_second(&self) -> f64 {
        let all: Duration = self.sorted.iter().sum();
        self.sorted.len() as f64 / all.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} took {:.1?} (median of {}, {:.1?} to {:.1?})",
            self.name,
            self.median(),
            self.sorted.len(),
            self.shortest(),
            self.longest()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_polls_until_the_check_succeeds() {
        let mut checks = 0;
        let found = wait_until("the third check", Duration::from_secs(60), async || {
            checks += 1;
            if checks == 3 { Ok(checks) } else { Err(checks) }
        });
        assert_eq!(found.await.expect("in time"), 3);
    }

    #[tokio::test]
    async fn the_error_names_the_condition_and_the_last_result() {
        let check = async || Err::<(), _>("nothing yet");
        let waited = wait_until("the worker is ready", Duration::from_millis(5), check).await;
        let text = waited.expect_err("nothing to find").to_string();
        assert!(text.starts_with("timed out after "), "{text}");
        assert!(
            text.ends_with("waiting until the worker is ready; last result: nothing yet"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_check_that_never_finishes_is_cancelled() {
        let check = async || std::future::pending::<Result<(), &str>>().await;
        let waited = wait_until("it answers", Duration::from_millis(5), check).await;
        let text = waited.expect_err("nothing to find").to_string();
        assert!(text.contains("did not finish"), "{text}");
    }

    #[test]
    fn times_are_in_order() {
        let times = Times {
            name: "x".to_owned(),
            sorted: [1, 2, 3, 10].map(Duration::from_secs).to_vec(),
        };
        assert_eq!(
            times.to_string(),
            "x took 2.0s (median of 4, 1.0s to 10.0s)"
        );
        assert!((times.per_second() - 0.25).abs() < 1e-9);
    }
}
