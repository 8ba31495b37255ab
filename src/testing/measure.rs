//! What tests wait for and measure.

use std::fmt::{self, Display};
use std::future::Future;
use std::time::{Duration, Instant};

/// The first pause between two looks; each is twice the one before, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// What was waited for did not happen in time.
///
/// ```
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let never = kapsel_testdb::wait_until("the worker is ready", Duration::ZERO, async || Err::<(), _>("it starts"));
/// let error = never.await.unwrap_err();
/// assert!(error.to_string().contains("in vain until the worker is ready; last: it starts"), "{error}");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:.1?} in vain until {what}; last: {last}")]
pub struct NotInTime {
    what: String,
    waited: Duration,
    last: String,
}

/// Looks again and again until there is something: a service that is ready, a row that a worker writes. `what` completes "waited in
/// vain until"; the closure says with an `Err` what is still missing. A look that takes longer than what is left of the time is given up.
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
/// [`NotInTime`] names what was waited for, and what the last look said.
pub async fn wait_until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, NotInTime> {
    let begun = Instant::now();
    let mut last = "the first look has not come back".to_owned();
    let mut pause = FIRST;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, look()).await {
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
        pause = (2 * pause).min(LONGEST);
    }
}

/// Runs an operation once and takes the time. Printed, it reads `import took 12.3ms`.
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

/// What an operation returned, and how long it took.
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
    /// The operation's name.
    pub name: String,
    /// By the clock on the wall, so with all waiting.
    pub elapsed: Duration,
    /// What it returned.
    pub value: T,
}

impl<T> Display for Measured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} took {:.1?}", self.name, self.elapsed)
    }
}

/// Runs an operation several times, one after the other, at least once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let times = kapsel_testdb::measure_times("addition", 100, async || { std::hint::black_box(6 * 7); }).await;
/// println!("{times}: {:.0} a second", times.per_second());
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

/// How long an operation took, each time.
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

    /// The time that half of them took at most.
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

    /// How many there were in a second, one after the other.
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
    async fn it_looks_until_there_is_something() {
        let mut looks = 0;
        let found = wait_until("three looks", Duration::from_secs(60), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks) }
        });
        assert_eq!(found.await.expect("in time"), 3);
    }

    #[tokio::test]
    async fn in_vain_it_tells_what_for_and_what_was_seen_last() {
        let look = async || Err::<(), _>("nothing yet");
        let waited = wait_until("the worker is ready", Duration::from_millis(5), look).await;
        let text = waited.expect_err("nothing to find").to_string();
        assert!(text.starts_with("waited "), "{text}");
        assert!(
            text.ends_with("in vain until the worker is ready; last: nothing yet"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_look_that_never_comes_back_is_given_up() {
        let look = async || std::future::pending::<Result<(), &str>>().await;
        let waited = wait_until("it answers", Duration::from_millis(5), look).await;
        let text = waited.expect_err("nothing to find").to_string();
        assert!(text.contains("has not come back"), "{text}");
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
