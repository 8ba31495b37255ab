//! A folder of PostgreSQL's programs in which some are scripts: machines that we do not have.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kapsel_testdb_core::server::binaries::Binaries;

use super::Project;

/// The folder, beside a project that uses it.
pub struct FakeBin {
    dir: PathBuf,
    real: PathBuf,
}

impl FakeBin {
    /// All programs as they are; the project takes them from here.
    pub fn of(project: &mut Project) -> Self {
        let real = Binaries::find(None).expect("PostgreSQL's programs").dir;
        let dir = project.beside("bin");
        fs::create_dir(&dir).expect("a folder");
        for entry in fs::read_dir(&real).expect("programs").flatten() {
            symlink(entry.path(), dir.join(entry.file_name())).expect("a link");
        }
        project.set("KAPSEL_TESTDB_SERVER_BIN_DIR", &dir.to_string_lossy());
        Self { dir, real }
    }

    /// Puts a shell script in a program's place; `"$real"` is that program.
    pub fn replace(&self, program: &str, script: &str) {
        let path = self.dir.join(program);
        fs::remove_file(&path).expect("a link");
        let real = self.real.join(program);
        let text = format!("#!/bin/sh\nreal='{}'\n{script}\n", real.display());
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
    }

    /// Makes `initdb` write down that it was run.
    pub fn count_initdb(&self) {
        let count = self.count_file();
        fs::write(&count, "").expect("a file");
        fs::set_permissions(&count, Permissions::from_mode(0o666)).expect("its mode");
        self.replace(
            "initdb",
            &format!("echo run >>'{}'\nexec \"$real\" \"$@\"", count.display()),
        );
    }

    /// How often `initdb` was run.
    pub fn initdb_runs(&self) -> usize {
        let text = fs::read_to_string(self.count_file()).expect("the file");
        text.lines().count()
    }

    fn count_file(&self) -> PathBuf {
        self.dir.join("initdb-runs")
    }

    /// Where the programs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
