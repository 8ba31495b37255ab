//! Archives of templates: a template as a file, for the caches of CI. Another machine restores it instead of running the migrations.
//!
//! An archive is content-addressed: its name has the fingerprint of the template and the hash of its contents, so equal templates have equal archives. It is
//! written under a temporary name and renamed when it is complete; a crash leaves a file that ends in `.tmp`.
//!
//! | line | contents |
//! |---|---|
//! | 1 | `kapsel-testdb template archive 1` |
//! | 2 | SHA-256 of everything after this line, in hexadecimal |
//! | 3 | an [`ArchiveHeader`] as JSON |
//! | rest | the output of pg_dump, compressed with gzip |

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use kapsel_testdb_core::protocol::hex;
use kapsel_testdb_core::template::{Input, SessionState};

/// Extension of the files.
pub const EXTENSION: &str = "kapsel-template";

const FORMAT: &str = "kapsel-testdb template archive 1";
/// Number of hexadecimal digits of the hash in a file's name.
const NAME_DIGITS: usize = 16;
/// Maximal length of the header, in bytes.
const HEADER_MAX: u64 = 64 << 20;

/// What a dump does not contain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHeader {
    /// The whole fingerprint of the template, in hexadecimal.
    pub fingerprint: String,
    /// The inputs of the fingerprint.
    pub inputs: Vec<Input>,
    /// Statements that give a clone the template's database-level settings.
    pub settings: Vec<String>,
    /// What its migrations left in their session.
    pub session: Option<SessionState>,
}

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file system operation failed.
    #[error("failed to {context} `{}`: {source}", path.display())]
    Io {
        /// The operation, a verb after "failed to".
        context: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is no archive of this version.
    #[error("`{}` is not an archive that this version of kapsel-testdb can read; export the template again", .0.display())]
    Format(PathBuf),
    /// The contents do not have the hash that the file names.
    #[error("the archive `{}` is damaged: its contents do not match its checksum; delete it, and export the template again", .0.display())]
    Damaged(PathBuf),
    /// The archive holds a template that the project does not need.
    #[error(
        "the archive `{}` is of another template; nothing was imported{}",
        path.display(), lines(differences)
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its differences from this project's template, one per line.
        differences: Vec<String>,
    },
    /// A directory has no archive for the project.
    #[error("`{}` contains no archive of this project's template or of the template of its first migrations; nothing was imported", .0.display())]
    NoneFits(PathBuf),
    /// The template's base exists on one server only.
    #[error(
        "a template that is made from `{0}` cannot be exported: another server has no such database; set `template.base` to \"template0\", and create what is \
         missing with `template.extensions` and `template.before`"
    )]
    Base(String),
    /// pg_dump failed.
    #[error("pg_dump failed{}", lines(.0))]
    Dump(Vec<String>),
}

fn lines(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| format!("\n  {line}"));
    lines.collect()
}

trait At<T> {
    fn at(self, context: &'static str, path: &Path) -> Result<T, ArchiveError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, context: &'static str, path: &Path) -> Result<T, ArchiveError> {
        self.map_err(|source| ArchiveError::Io {
            context,
            path: path.to_path_buf(),
            source,
        })
    }
}

/// An archive that is being written.
pub struct ArchiveWriter {
    directory: PathBuf,
    temporary: tempfile::NamedTempFile,
    text: GzEncoder<Hashing<BufWriter<File>>>,
    fingerprint: String,
}

impl ArchiveWriter {
    /// Begins an archive in a directory, which is created if it is missing.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn begin(directory: &Path, header: &ArchiveHeader) -> Result<Self, ArchiveError> {
        std::fs::create_dir_all(directory).at("create", directory)?;
        let temporary = tempfile::Builder::new()
            .suffix(".tmp")
            .tempfile_in(directory);
        let temporary = temporary.at("write to", directory)?;
        let begin = || -> io::Result<_> {
            let mut file = BufWriter::new(temporary.as_file().try_clone()?);
            // The place of the hash.
            writeln!(file, "{FORMAT}\n{:64}", "")?;
            let mut hashing = Hashing {
                inner: file,
                hash: Sha256::new(),
            };
            serde_json::to_writer(&mut hashing, header)?;
            hashing.write_all(b"\n")?;
            Ok(GzEncoder::new(hashing, Compression::fast()))
        };
        Ok(Self {
            text: begin().at("write to", directory)?,
            directory: directory.to_path_buf(),
            temporary,
            fingerprint: header.fingerprint.clone(),
        })
    }

    /// Adds a part of the dump.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, text: &[u8]) -> Result<(), ArchiveError> {
        self.text.write_all(text).at("write to", &self.directory)
    }

    /// Completes the archive and gives it its name: `prefix`, and its hash. An equal archive is replaced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self, prefix: &str) -> Result<PathBuf, ArchiveError> {
        let (directory, temporary) = (self.directory, self.temporary);
        let finish = || -> io::Result<String> {
            let Hashing { inner, hash } = self.text.finish()?;
            let mut file = inner.into_inner().map_err(|error| error.into_error())?;
            let hash = hex(&hash.finalize());
            file.seek(io::SeekFrom::Start(FORMAT.len() as u64 + 1))?;
            file.write_all(hash.as_bytes())?;
            file.sync_all()?;
            Ok(hash)
        };
        let hash = finish().at("write to", &directory)?;
        let name = format!("{prefix}-{}.{EXTENSION}", &hash[..NAME_DIGITS]);
        let path = directory.join(name);
        let persisted = temporary.persist(&path).map_err(|error| error.error);
        persisted.at("write", &path)?;
        Ok(path)
    }
}

impl std::fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("ArchiveWriter");
        fields
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// An archive whose contents have the hash that it names.
#[derive(Debug)]
pub struct Archive {
    /// What the dump does not contain.
    pub header: ArchiveHeader,
    /// The file.
    pub path: PathBuf,
    dump: GzDecoder<BufReader<File>>,
}

impl Archive {
    /// Opens an archive, and reads it once to check its hash.
    ///
    /// # Errors
    /// The file cannot be read, is no archive, or is damaged.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let mut file = BufReader::new(File::open(path).at("open", path)?);
        let not_an_archive = || ArchiveError::Format(path.to_path_buf());
        let format = read_line(&mut file, FORMAT.len() as u64).at("read", path)?;
        if format.as_deref() != Some(FORMAT.as_bytes()) {
            return Err(not_an_archive());
        }
        let hash = read_line(&mut file, 64).at("read", path)?;
        let begin = file.stream_position().at("read", path)?;
        let mut hashing = Hashing {
            inner: io::sink(),
            hash: Sha256::new(),
        };
        io::copy(&mut file, &mut hashing).at("read", path)?;
        let damaged = || ArchiveError::Damaged(path.to_path_buf());
        if hash.as_deref() != Some(hex(&hashing.hash.finalize()).as_bytes()) {
            return Err(damaged());
        }
        file.seek(io::SeekFrom::Start(begin)).at("read", path)?;
        let header = read_line(&mut file, HEADER_MAX).at("read", path)?;
        let header = serde_json::from_slice(&header.ok_or_else(not_an_archive)?);
        Ok(Self {
            header: header.map_err(|_| not_an_archive())?,
            path: path.to_path_buf(),
            dump: GzDecoder::new(file),
        })
    }

    /// The text of the dump.
    pub fn dump(&mut self) -> &mut impl Read {
        &mut self.dump
    }
}

/// A line without its end; `None` if it is longer than `max` bytes or has no end.
fn read_line(file: &mut impl BufRead, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.take(max + 1).read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then_some(line))
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fingerprint: &str) -> ArchiveHeader {
        ArchiveHeader {
            fingerprint: fingerprint.to_owned(),
            inputs: Vec::new(),
            settings: vec!["ALTER DATABASE {} SET x TO y".to_owned()],
            session: Some(SessionState::default()),
        }
    }

    fn write(directory: &Path, text: &str) -> PathBuf {
        let mut writer = ArchiveWriter::begin(directory, &header("ab")).expect("begun");
        for part in text.as_bytes().chunks(3) {
            writer.write(part).expect("written");
        }
        writer.finish("app").expect("finished")
    }

    #[test]
    fn an_archive_has_what_was_written_and_equal_ones_have_one_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let below = directory.path().join("cache");
        let path = write(&below, "SELECT 1;\n");
        assert_eq!(write(&below, "SELECT 1;\n"), path);
        assert_ne!(write(&below, "SELECT 2;\n"), path);
        assert_eq!(std::fs::read_dir(&below).expect("a directory").count(), 2);
        let mut archive = Archive::open(&path).expect("opened");
        assert_eq!(archive.header, header("ab"));
        let mut text = String::new();
        archive.dump().read_to_string(&mut text).expect("its text");
        assert_eq!(text, "SELECT 1;\n");
    }

    #[test]
    fn every_changed_byte_and_every_missing_end_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = write(directory.path(), "SELECT 1;\n");
        let bytes = std::fs::read(&path).expect("its bytes");
        let changed = directory.path().join("changed");
        let opens = |bytes: &[u8]| {
            std::fs::write(&changed, bytes).expect("written");
            Archive::open(&changed).is_ok()
        };
        assert!(opens(&bytes));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(!opens(&bytes), "byte {at}");
            assert!(!opens(&bytes[..at]), "the first {at} bytes");
        }
    }
}
