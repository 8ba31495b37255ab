//! Commands that change a building database: any migrator. A command has the database's connection in its environment. It is in a session of its own,
//! so that it can be killed with everything that it started: at its time limit, and when the build is interrupted.
//!
//! A crash leaves the command, and the `building` database of a dead run, which the sweep removes once nothing is connected to it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha384};

use crate::config::CommandConfig;
use crate::platform;
use crate::protocol::{BuildCommand, hex};
use crate::template::TemplateError;
use crate::template::source::HashingReader;
use crate::template::steps::Site;

/// Maximal length of the output in an error, in bytes.
const OUTPUT_MAX: usize = 16 << 10;
/// How long to wait for the end of the output after the command has ended: a process that it left may hold the pipe.
const OUTPUT_WAIT: Duration = Duration::from_secs(1);

/// Reads the input files of a command.
pub(super) fn read(root: &Path, config: &CommandConfig) -> Result<BuildCommand, TemplateError> {
    let mut hash = Sha384::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    config.words.iter().for_each(|word| add(word));
    add(config.version.as_deref().unwrap_or_default());
    for pattern in &config.inputs {
        for path in matching(root, pattern, &config.name)? {
            let read = HashingReader::open(&path).and_then(|mut text| {
                io::copy(&mut text, &mut io::sink())?;
                Ok(text.checksum())
            });
            let checksum = read.map_err(|error| TemplateError::Read {
                path: path.clone(),
                message: format!("{error} (an input of the command `{}`)", config.name),
            })?;
            add(&path.strip_prefix(root).unwrap_or(&path).to_string_lossy());
            add(&checksum);
        }
    }
    Ok(BuildCommand {
        words: config.words.clone(),
        name: config.name.clone(),
        directory: root.to_path_buf(),
        checksum: hex(&hash.finalize()),
        timeout_secs: config.timeout.as_secs(),
    })
}

/// The files that a pattern matches, in their order; a directory stands for all files in it.
fn matching(root: &Path, pattern: &str, command: &str) -> Result<Vec<PathBuf>, TemplateError> {
    let problem = |message: String| TemplateError::Inputs {
        command: command.to_owned(),
        pattern: pattern.to_owned(),
        message,
    };
    let escaped = glob::Pattern::escape(&root.to_string_lossy());
    let full = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        false => format!("{escaped}/{pattern}"),
    };
    let mut files = Vec::new();
    for path in glob::glob(&full).map_err(|error| problem(error.to_string()))? {
        let path = path.map_err(|error| problem(error.to_string()))?;
        collect_files(path, &mut files).map_err(|error| problem(error.to_string()))?;
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(problem("it matches no file".to_owned()));
    }
    Ok(files)
}

fn collect_files(path: PathBuf, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path);
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // A symbolic link to a directory may lead back.
        if entry.file_type()?.is_dir() || !entry.path().is_dir() {
            collect_files(entry.path(), files)?;
        }
    }
    Ok(())
}

/// Runs a command for a database.
///
/// # Errors
/// It could not be started, failed, or did not end in time. The error has the end of its output.
pub(super) async fn run(command: &BuildCommand, site: Site<'_>) -> Result<(), TemplateError> {
    let failed = |reason: String, output: String| TemplateError::Command {
        command: command.name.clone(),
        reason,
        output,
    };
    let not_started =
        |error: io::Error| failed(format!("could not be started: {error}"), String::new());
    let (reader, writer) = io::pipe().map_err(not_started)?;
    let mut process = std::process::Command::new(&command.words[0]);
    process
        .args(&command.words[1..])
        .current_dir(&command.directory);
    process.stdin(Stdio::null());
    process
        .stdout(writer.try_clone().map_err(not_started)?)
        .stderr(writer);
    process.env_remove("PGSERVICE").env_remove("PGHOSTADDR");
    let address = site.address;
    process.env("DATABASE_URL", address.url_with_password(site.database));
    process.envs(address.libpq_variables(site.database));
    // A killed command must not leave a statement that runs on.
    let major = u32::try_from(site.facts.major()).unwrap_or(0);
    if site.facts.system().can_check_clients(major) {
        let options = address.options.as_deref().unwrap_or_default();
        let check = "-c client_connection_check_interval=1s";
        process.env("PGOPTIONS", format!("{options} {check}").trim_start());
    }
    if let Some(password) = &address.password {
        process.env("PGPASSWORD", password);
    }
    platform::detach(&mut process, &[]);
    let mut process = tokio::process::Command::from(process);
    let mut child = process.spawn().map_err(not_started)?;
    // Closes our ends of the pipe.
    drop(process);
    let group = Group(child.id());
    let output = Output::read(reader);
    let timeout = Duration::from_secs(command.timeout_secs);
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    // What it has left running must not change the template later.
    drop(group);
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("failed ({status})"), output.end().await)),
        Ok(Err(error)) => Err(failed(format!("failed ({error})"), output.end().await)),
        Err(_) => {
            let _ = child.wait().await;
            let reason = format!(
                "was killed because it did not end within {} s (`timeout_secs`)",
                command.timeout_secs
            );
            Err(failed(reason, output.end().await))
        }
    }
}

/// Kills the process group of the command, also if the build is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            platform::kill_group(leader);
        }
    }
}

/// The end of the output, read by a thread.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Output {
    fn read(mut reader: io::PipeReader) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..count]);
                let surplus = bytes.len().saturating_sub(OUTPUT_MAX);
                bytes.drain(..surplus);
            }
        });
        Self { bytes, thread }
    }

    async fn end(self) -> String {
        let deadline = Instant::now() + OUTPUT_WAIT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(inputs: &[&str]) -> CommandConfig {
        CommandConfig {
            words: vec!["true".to_owned()],
            name: "true".to_owned(),
            inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
            version: None,
            timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn the_checksum_covers_names_and_texts_of_all_inputs() {
        let dir = tempfile::tempdir().expect("a directory");
        // A root with the characters of a pattern.
        let root = dir.path().join("a[b]*");
        std::fs::create_dir_all(root.join("db/inner")).expect("directories");
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).expect("a file");
        write("db/a.sql", "1");
        write("db/inner/b.sql", "2");
        write("other.txt", "3");
        let checksum = |config: &CommandConfig| read(&root, config).expect("inputs").checksum;
        let all = config(&["db/**/*.sql"]);
        let first = checksum(&all);
        // The same files by other patterns.
        assert_eq!(checksum(&config(&["db"])), first);
        write("other.txt", "4");
        assert_eq!(checksum(&all), first);
        write("db/inner/b.sql", "5");
        let second = checksum(&all);
        assert_ne!(second, first);
        std::fs::rename(root.join("db/a.sql"), root.join("db/c.sql")).expect("renamed");
        assert_ne!(checksum(&all), second);
        let mut other = all.clone();
        other.version = Some("2".to_owned());
        assert_ne!(checksum(&other), checksum(&all));
        let error = read(&root, &config(&["db/*.psql"])).expect_err("no file");
        let text = error.to_string();
        assert!(
            text.contains("`db/*.psql`") && text.contains("matches no file"),
            "{text}"
        );
    }
}
