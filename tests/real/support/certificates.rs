//! A certificate authority of a test's own, and a server's certificate that it signed, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::short_temp_dir;

/// Files in a folder that goes with the value.
pub struct Certificates {
    dir: TempDir,
}

const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

impl Certificates {
    /// For a server that is reached as this name, an address or a host.
    pub fn for_host(san: &str) -> Self {
        let made = Self {
            dir: short_temp_dir(),
        };
        let extensions = format!("subjectAltName={san}\n");
        fs::write(made.path("san"), extensions).expect("openssl's extensions");
        made.openssl(
            &[
                "req",
                "-x509",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=test CA",
            ],
            KEY,
            &["-keyout", "ca.key", "-out", "ca.crt"],
        );
        made.openssl(
            &["req", "-new", "-nodes", "-subj", "/CN=server"],
            KEY,
            &["-keyout", "server.key", "-out", "server.csr"],
        );
        made.openssl(
            &["x509", "-req", "-days", "2", "-in", "server.csr"],
            &["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"],
            &["-extfile", "san", "-out", "server.crt"],
        );
        made
    }

    fn openssl(&self, what: &[&str], how: &[&str], files: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(what).args(how).args(files);
        let output = command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("openssl");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// Copies the server's files into its data directory.
    pub fn install(&self, data: &Path) -> [PathBuf; 2] {
        ["server.crt", "server.key"].map(|name| {
            let to = data.join(name);
            fs::copy(self.path(name), &to).expect("a certificate");
            to
        })
    }
}
