//! A project whose server is a service of a compose file, on a real engine.

use std::fs::{self, Permissions};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use sqlx::postgres::PgConnectOptions;

use super::{Project, Session, free_port};

/// The image that `scripts/make-test-image` makes.
const IMAGE: &str = "kapsel-testdb-postgres";
const SHIPPED: &str = include_str!("../../../docker-compose.yml");

/// The project; its containers, networks and volumes go with it, whether the test passes or panics.
pub struct Composed {
    project: Project,
    name: String,
    port: u16,
}

/// The programs that a test may hide from the tool, where they are.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found.find(|program| program.is_file())
}

impl Composed {
    /// With a compose file; `None`, saying so, only where somebody said that there is no engine here.
    pub fn with(file: &str) -> Option<Self> {
        if std::env::var("KAPSEL_TESTDB_NO_DOCKER").is_ok_and(|v| v == "1") {
            let _ = writeln!(
                std::io::stderr(),
                "left out: KAPSEL_TESTDB_NO_DOCKER is set"
            );
            return None;
        }
        let image = std::env::var("KAPSEL_TESTDB_IMAGE").unwrap_or_else(|_| IMAGE.to_owned());
        let found = docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
        assert!(
            found.is_ok(),
            "{found:?}; `scripts/test` starts the engine and makes the image; KAPSEL_TESTDB_NO_DOCKER=1 leaves these tests out"
        );
        let mut project = Project::new("app");
        let name = format!("kt{}", kapsel_testdb::test_id());
        let port = free_port();
        project.set("COMPOSE_PROJECT_NAME", &name);
        project.set("KAPSEL_TESTDB_IMAGE", &image);
        project.set("KAPSEL_TESTDB_PORT", &port.to_string());
        for variable in ["DOCKER_HOST", "DOCKER_CONTEXT"] {
            if let Ok(value) = std::env::var(variable) {
                project.set(variable, &value);
            }
        }
        project.config("[server]\nmode = \"compose\"\n");
        project.migration("0001_users", "CREATE TABLE users (id int PRIMARY KEY);");
        project.write("docker-compose.yml", file);
        Some(Self {
            project,
            name,
            port,
        })
    }

    /// With the file that we ship.
    pub fn shipped() -> Option<Self> {
        Self::with(SHIPPED)
    }

    /// With one service: its name, and the lines of it beside the image.
    pub fn service(name: &str, lines: &[&str]) -> Option<Self> {
        Self::with(&one_service(name, lines))
    }

    /// Puts a `docker` before the real one that notes how it is called, and has a `compose` subcommand whatever is installed.
    pub fn record(&mut self) {
        let folder = self.project.beside("bin");
        fs::create_dir(&folder).expect("a folder");
        let real = installed("docker").expect("docker is installed");
        let compose = match installed("docker-compose") {
            Some(program) => format!("shift; exec '{}' \"$@\"", program.display()),
            None => format!("exec '{}' \"$@\"", real.display()),
        };
        let script = format!(
            "#!/bin/sh\necho \"$*\" >>'{}'\ncase $1 in compose) {compose};; esac\nexec '{}' \"$@\"\n",
            self.calls_file().display(),
            real.display()
        );
        let program = folder.join("docker");
        fs::write(&program, script).expect("a script");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
        let path = std::env::var("PATH").expect("a PATH");
        self.project
            .set("PATH", &format!("{}:{path}", folder.display()));
    }

    fn calls_file(&self) -> PathBuf {
        self.project.beside("calls")
    }

    /// How `docker` was called since [`Self::record`].
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.calls_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often the service was brought up since [`Self::record`].
    pub fn ups(&self) -> usize {
        self.calls().iter().filter(|c| c.contains(" up -d")).count()
    }

    /// Forgets what was noted about the service.
    pub fn forget(&self) {
        fs::remove_dir_all(self.project.beside("rt/compose")).expect("the notes");
    }

    /// A session of the superuser in the shipped file's server.
    pub fn session(&self) -> Session {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1");
        let options = options.port(self.port).username("postgres");
        Session::open(&options.password("kapsel").database("postgres"))
    }

    /// Where the shipped file publishes the server.
    pub fn published(&self) -> String {
        format!("postgres@127.0.0.1:{}", self.port)
    }
}

/// A compose file with one service.
pub fn one_service(name: &str, lines: &[&str]) -> String {
    let mut text = format!(
        "services:\n  {name}:\n    image: $KAPSEL_TESTDB_IMAGE\n    network_mode: bridge\n"
    );
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

fn docker(words: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(words).output();
    let output = output.map_err(|error| format!("no docker: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let list = |words: &[&str]| {
            docker(&[words, &["-q", "--filter", &label]].concat()).unwrap_or_default()
        };
        let on_all = |words: &[&str], names: &str| {
            let names: Vec<&str> = names.split_whitespace().collect();
            match names[..] {
                [] => String::new(),
                _ => docker(&[words, &names].concat()).unwrap_or_default(),
            }
        };
        let containers = list(&["ps", "-a"]);
        // A container that was made anew has the volumes of the old one, by name: `rm -v` leaves those.
        let names = "{{range .Mounts}}{{.Name}} {{end}}";
        let volumes = on_all(&["inspect", "--format", names], &containers);
        on_all(&["rm", "-f", "-v"], &containers);
        on_all(&["network", "rm"], &list(&["network", "ls"]));
        on_all(&["volume", "rm", "-f"], &volumes);
        on_all(&["volume", "rm", "-f"], &list(&["volume", "ls"]));
    }
}

impl Deref for Composed {
    type Target = Project;

    fn deref(&self) -> &Project {
        &self.project
    }
}

impl DerefMut for Composed {
    fn deref_mut(&mut self) -> &mut Project {
        &mut self.project
    }
}
