//! What systemd's login manager removes when the last login session of a user ends: the files in `/dev/shm` (`RemoveIPC`) and `/run/user/<uid>`.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Users below this number are system users, whose shared memory stays.
const FIRST_LOGIN_UID: u32 = 1000;

/// Where the login manager's settings are; later ones win.
const SETTINGS: [&str; 4] = [
    "/usr/lib/systemd/logind.conf.d",
    "/etc/systemd/logind.conf",
    "/run/systemd/logind.conf.d",
    "/etc/systemd/logind.conf.d",
];

/// Whether systemd removes what this user has at `path` when the user's last login session ends.
pub fn files_end_with_login(path: &Path) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    // The login manager creates this directory when it starts.
    Path::new("/run/systemd/seats").is_dir() && is_removed(path, uid, &settings()) && !lingers()
}

fn is_removed(path: &Path, uid: u32, settings: &str) -> bool {
    let in_shared_memory = path.starts_with("/dev/shm");
    path.starts_with("/run/user")
        || (in_shared_memory && uid >= FIRST_LOGIN_UID && removes_shared_memory(settings))
}

/// systemd's own default is yes; some distributions say no.
fn removes_shared_memory(settings: &str) -> bool {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "RemoveIPC").then(|| value.trim().to_ascii_lowercase())
    };
    let last = settings.lines().filter_map(value).next_back();
    last.is_none_or(|value| !matches!(value.as_str(), "no" | "false" | "off" | "0"))
}

fn settings() -> String {
    let files = SETTINGS.iter().flat_map(|place| {
        let place = Path::new(place);
        let mut files: Vec<_> = match fs::read_dir(place) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => vec![place.to_path_buf()],
        };
        files.sort();
        files
    });
    let texts = files.map(|file| fs::read_to_string(file).unwrap_or_default());
    texts.collect::<Vec<_>>().join("\n")
}

/// Whether the user's services go on without a login session (`loginctl enable-linger`).
fn lingers() -> bool {
    let Ok(output) = Command::new("id").arg("-un").output() else {
        return false;
    };
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !name.is_empty() && Path::new("/var/lib/systemd/linger").join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_login_users_in_memory_end_with_the_login() {
        let is_removed = |path: &str, uid, settings| is_removed(Path::new(path), uid, settings);
        assert!(is_removed("/dev/shm/x", 1000, ""));
        assert!(is_removed(
            "/dev/shm/x",
            1000,
            "#RemoveIPC=no\nRemoveIPC=yes"
        ));
        assert!(!is_removed(
            "/dev/shm/x",
            1000,
            "RemoveIPC=yes\nRemoveIPC = no"
        ));
        assert!(!is_removed("/dev/shm/x", 0, ""));
        assert!(is_removed("/run/user/0/kapsel-testdb", 0, "RemoveIPC=no"));
        assert!(!is_removed("/tmp/x", 1000, ""));
    }
}
