//! The compose tool: `docker compose`, `docker-compose` or `podman compose`, and its commands.
//!
//! We use only features that all three have (`docker-compose` 1.29 has no `up --wait`). A crash leaves a command that continues; an
//! `up` holds the lock until it ends.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::platform;
use crate::server::compose::ComposeError;
use crate::server::compose::published::{self, Endpoint};
use crate::waiting::waiting;

/// Time limit of a query; `docker-compose` 1.29 needs half a second.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of `up` and `stop`: the tool may have to pull an image.
const ACTION_TIMEOUT: Duration = Duration::from_secs(900);
/// Number of log lines in an error.
const LOG_LINES: usize = 8;

const CANDIDATES: &[&[&str]] = &[
    &["docker", "compose"],
    &["docker-compose"],
    &["podman", "compose"],
];

/// A compose tool and its compose file.
#[derive(Debug, Clone)]
pub struct Tool {
    command: Vec<String>,
    root: PathBuf,
    file: Option<PathBuf>,
}

/// Result of a command.
struct Output {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Tool {
    /// The first tool that works. Tries only the configured command, if there is one.
    ///
    /// # Errors
    /// [`ComposeError::NoTool`] with the commands that were tried.
    pub async fn find(
        configured: &[String],
        root: &Path,
        file: Option<&Path>,
    ) -> Result<Self, ComposeError> {
        let candidates: Vec<Vec<String>> = match configured {
            [] => {
                let owned = |words: &&[&str]| words.iter().map(|w| (*w).to_owned()).collect();
                CANDIDATES.iter().map(owned).collect()
            }
            command => vec![command.to_vec()],
        };
        let mut tried = Vec::new();
        for command in candidates {
            let tool = Self::new(command, root, file);
            let words: Vec<String> = [&tool.command[..], &["version".to_owned()]].concat();
            match tool.run(&words, QUERY_TIMEOUT, &[]).await {
                Ok(output) if output.status.success() => return Ok(tool),
                Ok(output) => tried.push(format!("`{}` ({})", words.join(" "), output.reason())),
                Err(error) => tried.push(format!("`{}` ({error})", words.join(" "))),
            }
        }
        Err(ComposeError::NoTool { tried })
    }

    /// A tool that is known to work.
    pub fn new(command: Vec<String>, root: &Path, file: Option<&Path>) -> Self {
        Self {
            command,
            root: root.to_path_buf(),
            file: file.map(Path::to_path_buf),
        }
    }

    /// Its command, for [`Self::new`].
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// The engine's host, if it is another machine.
    pub async fn remote_engine(&self) -> Option<String> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let variable = match self.command[0].as_str() {
            "podman" => "CONTAINER_HOST",
            _ => "DOCKER_HOST",
        };
        let endpoint = match var(variable) {
            Some(endpoint) => endpoint,
            None => self.docker_context().await?,
        };
        published::remote_host(&endpoint)
    }

    /// The endpoint of docker's current context.
    async fn docker_context(&self) -> Option<String> {
        let format = "{{.Endpoints.docker.Host}}";
        let words = ["docker", "context", "inspect", "--format", format].map(str::to_owned);
        let output = self.run(&words, QUERY_TIMEOUT, &[]).await.ok()?;
        output
            .status
            .success()
            .then(|| output.stdout.trim().to_owned())
    }

    /// The services of the compose file.
    ///
    /// # Errors
    /// The tool cannot read it.
    pub async fn services(&self) -> Result<Vec<String>, ComposeError> {
        let output = self.query(&["config", "--services"], QUERY_TIMEOUT).await?;
        let mut services: Vec<String> = output.lines().map(|l| l.trim().to_owned()).collect();
        services.retain(|service| !service.is_empty());
        services.sort();
        Ok(services)
    }

    /// Whether the project has containers. This is the first query that needs the engine. It covers all services, because
    /// `podman-compose` accepts no service here.
    ///
    /// # Errors
    /// [`ComposeError::Engine`].
    pub async fn has_containers(&self) -> Result<bool, ComposeError> {
        match self.query(&["ps", "-q"], QUERY_TIMEOUT).await {
            Ok(ids) => Ok(!ids.trim().is_empty()),
            Err(ComposeError::Command { output, .. }) => Err(ComposeError::Engine {
                tool: self.command.join(" "),
                // `docker-compose` 1.29 prints a Python traceback, which ends with the reason.
                message: output.rsplit(" | ").next().unwrap_or_default().to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// The published port of the service; `None` if the port is not published or the service does not run.
    ///
    /// # Errors
    /// The tool did not finish in time.
    pub async fn endpoint(
        &self,
        service: &str,
        port: u16,
    ) -> Result<Option<Endpoint>, ComposeError> {
        match self
            .query(&["port", service, &port.to_string()], QUERY_TIMEOUT)
            .await
        {
            Ok(text) => Ok(published::endpoint(&text)),
            Err(ComposeError::Command { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The output of a program in the service's container; `None` if the command failed, as when the container does not run. Errors
    /// do not contain the output, which may be a secret.
    ///
    /// # Errors
    /// The tool did not finish in time.
    pub async fn exec(
        &self,
        service: &str,
        words: &[&str],
    ) -> Result<Option<String>, ComposeError> {
        let words = [&["exec", "-T", service], words].concat();
        match self.query(&words, QUERY_TIMEOUT).await {
            Ok(text) => Ok(Some(text)),
            Err(ComposeError::Command { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts the service and its dependencies. The command inherits the lock: if this process dies, the next one waits for the
    /// command.
    ///
    /// # Errors
    /// The tool failed.
    pub async fn up(&self, service: &str, lock: &File) -> Result<(), ComposeError> {
        let words = self.words(&["up", "-d", service]);
        let result = self.run(&words, ACTION_TIMEOUT, &[lock.as_raw_fd()]).await;
        check_result(&words, ACTION_TIMEOUT, result).map(drop)
    }

    /// Stops the service.
    ///
    /// # Errors
    /// The tool failed.
    pub async fn stop(&self, service: &str) -> Result<(), ComposeError> {
        self.query(&["stop", service], ACTION_TIMEOUT)
            .await
            .map(drop)
    }

    /// The last lines of the service's log.
    ///
    /// # Errors
    /// The tool failed.
    pub async fn log_tail(&self, service: &str, count: usize) -> Result<Vec<String>, ComposeError> {
        let count = count.to_string();
        let words = ["logs", "--tail", &count, service];
        let output = self.query(&words, QUERY_TIMEOUT);
        let lines = strip_prefixes(&output.await?);
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// The last lines of the service's log, for an error.
    pub async fn logs(&self, service: &str) -> String {
        let count = LOG_LINES.to_string();
        let words = self.words(&["logs", "--tail", &count, service]);
        match self.run(&words, QUERY_TIMEOUT, &[]).await {
            Ok(output) => last_lines(&strip_prefixes(&output.stdout), LOG_LINES),
            Err(error) => error,
        }
    }

    /// A command line for output.
    pub fn command_line(&self, words: &[&str]) -> String {
        self.words(words).join(" ")
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        let mut all = self.command.clone();
        if let Some(file) = &self.file {
            all.extend(["-f".to_owned(), file.to_string_lossy().into_owned()]);
        }
        all.extend(words.iter().map(|w| (*w).to_owned()));
        all
    }

    async fn query(&self, words: &[&str], timeout: Duration) -> Result<String, ComposeError> {
        let words = self.words(words);
        let result = self.run(&words, timeout, &[]).await;
        check_result(&words, timeout, result)
    }

    /// Runs a command to its end. It inherits only the descriptors in `keep`. The error says why it did not end.
    async fn run(
        &self,
        words: &[String],
        timeout: Duration,
        keep: &[RawFd],
    ) -> Result<Output, String> {
        tracing::debug!("running `{}`", words.join(" "));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.root);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        platform::detach(command.as_std_mut(), keep);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "not installed".to_owned(),
            _ => error.to_string(),
        })?;
        let _waiting = waiting(format_args!("`{}`", words.join(" ")), timeout);
        let group = child.id();
        match tokio::time::timeout(timeout, child.wait_with_output()).await {
            Ok(Ok(output)) => Ok(Output {
                status: output.status,
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                if let Some(group) = group {
                    platform::kill_group(group);
                }
                Err(format!("no response within {} s", timeout.as_secs()))
            }
        }
    }
}

/// The output of a command, if it succeeded.
fn check_result(
    words: &[String],
    timeout: Duration,
    result: Result<Output, String>,
) -> Result<String, ComposeError> {
    let command = words.join(" ");
    match result {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => Err(ComposeError::Command {
            command,
            status: output.status.to_string(),
            output: last_lines(&output.stderr, 5),
        }),
        Err(_) => Err(ComposeError::Slow {
            command,
            after: timeout,
        }),
    }
}

impl Output {
    /// The first line that is not empty, else the exit status.
    fn reason(&self) -> String {
        let lines = self.stderr.lines().chain(self.stdout.lines());
        let mut lines = lines.map(str::trim).filter(|line| !line.is_empty());
        lines
            .next()
            .map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

/// Removes colors and the service names that the tools print before each line.
fn strip_prefixes(log: &str) -> String {
    let mut plain = String::new();
    let mut rest = log;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    let lines = plain.lines();
    let texts = lines.map(|line| line.split_once(" | ").map_or(line, |(_, text)| text));
    texts.collect::<Vec<_>>().join("\n")
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let nonempty: Vec<&str> = lines.into_iter().filter(|l| !l.is_empty()).collect();
    nonempty[nonempty.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_and_prefixes_are_removed_from_logs() {
        let log = "Attaching to app_db_1\n\u{1b}[36mdb_1  |\u{1b}[0m one | two\n\u{1b}[36mdb_1  |\u{1b}[0m three\n";
        assert_eq!(last_lines(&strip_prefixes(log), 2), "one | two | three");
    }
}
