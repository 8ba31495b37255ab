//! The command line that reads compose files: `docker compose`, `docker-compose` or `podman compose`, and what it is asked.
//!
//! Only what all three have is used (`docker-compose` 1.29 has no `up --wait`). A crash of ours leaves a command that goes on by itself;
//! an `up` holds the lock until it has ended.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::ComposeError;
use super::published::{self, Endpoint};
use crate::platform;

/// How long a question may take; `docker-compose` 1.29 needs half a second for one.
const QUESTION: Duration = Duration::from_secs(60);
/// How long `up` and `stop` may take: an image may have to be pulled.
const ACTION: Duration = Duration::from_secs(900);
/// How much of a log goes into an error.
const LOG_LINES: usize = 8;

const KNOWN: &[&[&str]] = &[
    &["docker", "compose"],
    &["docker-compose"],
    &["podman", "compose"],
];

/// A tool that answers, and the compose file that it reads.
#[derive(Debug, Clone)]
pub struct Tool {
    command: Vec<String>,
    root: PathBuf,
    file: Option<PathBuf>,
}

/// What a command printed.
struct Output {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Tool {
    /// The first tool that answers; with a configured command, only that one.
    ///
    /// # Errors
    /// [`ComposeError::NoTool`] with what was tried.
    pub async fn find(
        configured: &[String],
        root: &Path,
        file: Option<&Path>,
    ) -> Result<Self, ComposeError> {
        let candidates: Vec<Vec<String>> = match configured {
            [] => {
                let owned = |words: &&[&str]| words.iter().map(|w| (*w).to_owned()).collect();
                KNOWN.iter().map(owned).collect()
            }
            command => vec![command.to_vec()],
        };
        let mut tried = Vec::new();
        for command in candidates {
            let tool = Self::known(command, root, file);
            let words: Vec<String> = [&tool.command[..], &["version".to_owned()]].concat();
            match tool.run(&words, QUESTION, &[]).await {
                Ok(output) if output.status.success() => return Ok(tool),
                Ok(output) => tried.push(format!("`{}` ({})", words.join(" "), output.reason())),
                Err(error) => tried.push(format!("`{}` ({error})", words.join(" "))),
            }
        }
        Err(ComposeError::NoTool { tried })
    }

    /// One that is known to answer.
    pub fn known(command: Vec<String>, root: &Path, file: Option<&Path>) -> Self {
        Self {
            command,
            root: root.to_path_buf(),
            file: file.map(Path::to_path_buf),
        }
    }

    /// Its words, to be found again with [`Self::known`].
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Where the engine is, if on another machine.
    pub async fn remote_engine(&self) -> Option<String> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let own = match self.command[0].as_str() {
            "podman" => "CONTAINER_HOST",
            _ => "DOCKER_HOST",
        };
        let endpoint = match var(own) {
            Some(endpoint) => endpoint,
            None => self.context().await?,
        };
        published::remote_host(&endpoint)
    }

    /// The endpoint of docker's current context.
    async fn context(&self) -> Option<String> {
        let format = "{{.Endpoints.docker.Host}}";
        let words = ["docker", "context", "inspect", "--format", format].map(str::to_owned);
        let output = self.run(&words, QUESTION, &[]).await.ok()?;
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
        let output = self.ask(&["config", "--services"], QUESTION).await?;
        let mut services: Vec<String> = output.lines().map(|l| l.trim().to_owned()).collect();
        services.retain(|service| !service.is_empty());
        services.sort();
        Ok(services)
    }

    /// Whether the project has containers at all; the first question that needs the engine. Of all services: `podman-compose` takes
    /// none here.
    ///
    /// # Errors
    /// [`ComposeError::Engine`].
    pub async fn has_containers(&self) -> Result<bool, ComposeError> {
        match self.ask(&["ps", "-q"], QUESTION).await {
            Ok(ids) => Ok(!ids.trim().is_empty()),
            Err(ComposeError::Command { output, .. }) => Err(ComposeError::Engine {
                tool: self.command.join(" "),
                // `docker-compose` 1.29 prints a Python traceback, which ends with the reason.
                message: output.rsplit(" | ").next().unwrap_or_default().to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Where the service's port is published; `None` where it is not, or where the service does not run.
    ///
    /// # Errors
    /// The tool does not answer.
    pub async fn endpoint(
        &self,
        service: &str,
        port: u16,
    ) -> Result<Option<Endpoint>, ComposeError> {
        match self
            .ask(&["port", service, &port.to_string()], QUESTION)
            .await
        {
            Ok(text) => Ok(published::endpoint(&text)),
            Err(ComposeError::Command { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a program prints in the service's container; `None` where that does not run. For what may be a secret: the output goes
    /// into no error.
    ///
    /// # Errors
    /// The tool does not answer.
    pub async fn inside(
        &self,
        service: &str,
        words: &[&str],
    ) -> Result<Option<String>, ComposeError> {
        let words = [&["exec", "-T", service], words].concat();
        match self.ask(&words, QUESTION).await {
            Ok(text) => Ok(Some(text)),
            Err(ComposeError::Command { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings the service up, and what it depends on. The command holds the lock, too: should we die, the next one waits for it.
    ///
    /// # Errors
    /// What the tool said.
    pub async fn up(&self, service: &str, lock: &File) -> Result<(), ComposeError> {
        let words = self.words(&["up", "-d", service]);
        let ran = self.run(&words, ACTION, &[lock.as_raw_fd()]).await;
        finished(&words, ACTION, ran).map(drop)
    }

    /// Stops the service.
    ///
    /// # Errors
    /// What the tool said.
    pub async fn stop(&self, service: &str) -> Result<(), ComposeError> {
        self.ask(&["stop", service], ACTION).await.map(drop)
    }

    /// The last lines of the service's log.
    ///
    /// # Errors
    /// What the tool said.
    pub async fn log_tail(&self, service: &str, count: usize) -> Result<Vec<String>, ComposeError> {
        let count = count.to_string();
        let words = ["logs", "--tail", &count, service];
        let output = self.ask(&words, QUESTION);
        let lines = unprefixed(&output.await?);
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// The end of the service's log, for an error.
    pub async fn logs(&self, service: &str) -> String {
        let count = LOG_LINES.to_string();
        let words = self.words(&["logs", "--tail", &count, service]);
        match self.run(&words, QUESTION, &[]).await {
            Ok(output) => last_lines(&unprefixed(&output.stdout), LOG_LINES),
            Err(error) => error,
        }
    }

    /// The command line that does something, for people to repeat.
    pub fn shown(&self, words: &[&str]) -> String {
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

    async fn ask(&self, words: &[&str], patience: Duration) -> Result<String, ComposeError> {
        let words = self.words(words);
        let ran = self.run(&words, patience, &[]).await;
        finished(&words, patience, ran)
    }

    /// Runs a command to its end, with no descriptor of ours but `keep`. The error is what kept it from ending.
    async fn run(
        &self,
        words: &[String],
        patience: Duration,
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
        let group = child.id();
        match tokio::time::timeout(patience, child.wait_with_output()).await {
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
                Err(format!("no answer within {} s", patience.as_secs()))
            }
        }
    }
}

/// What a command printed, if it ended well.
fn finished(
    words: &[String],
    patience: Duration,
    ran: Result<Output, String>,
) -> Result<String, ComposeError> {
    let command = words.join(" ");
    match ran {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => Err(ComposeError::Command {
            command,
            status: output.status.to_string(),
            output: last_lines(&output.stderr, 5),
        }),
        Err(_) => Err(ComposeError::Slow {
            command,
            after: patience,
        }),
    }
}

impl Output {
    /// The first line that says something.
    fn reason(&self) -> String {
        let lines = self.stderr.lines().chain(self.stdout.lines());
        let mut lines = lines.map(str::trim).filter(|line| !line.is_empty());
        lines
            .next()
            .map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

/// A log without the colours and the names of services that the tools put before each line.
fn unprefixed(log: &str) -> String {
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
    let said: Vec<&str> = lines.into_iter().filter(|l| !l.is_empty()).collect();
    said[said.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_without_colours_and_prefixes() {
        let log = "Attaching to app_db_1\n\u{1b}[36mdb_1  |\u{1b}[0m one | two\n\u{1b}[36mdb_1  |\u{1b}[0m three\n";
        assert_eq!(last_lines(&unprefixed(log), 2), "one | two | three");
    }
}
