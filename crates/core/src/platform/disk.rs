//! The message for a lack of space on the server (SQLSTATE 53100): its data directory or its shared memory.

use std::path::Path;

use crate::platform;

/// Where Linux keeps POSIX shared memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// What is full according to the server's message `error`, its size and the remedies. `data`: the server's data directory, if it is known and on this
/// host.
pub fn no_space_message(error: &str, data: Option<&Path>) -> String {
    // The segment's name is the same in all languages.
    if !error.contains("shared memory") && !error.contains("\"/PostgreSQL.") {
        return full_disk_message(data);
    }
    let size = data.and_then(|_| platform::disk_size(Path::new(SHARED_MEMORY)));
    let size = size.map_or_else(String::new, |size| format!(" ({} MB)", size >> 20));
    format!(
        "the server's shared memory `{SHARED_MEMORY}`{size} is full, not its disk; start the container with a larger `--shm-size`, or use fewer \
         parallel workers: `ALTER SYSTEM SET max_parallel_maintenance_workers = 0` (index builds), `max_parallel_workers_per_gather = 0` (queries)"
    )
}

/// The size of the file system and the remedies. `data`: the server's data directory, if it is known and on this host.
pub fn full_disk_message(data: Option<&Path>) -> String {
    let sizes = data.and_then(|data| {
        let (free, all) = (platform::free_bytes(data)?, platform::disk_size(data)?);
        Some((data, free >> 20, all >> 20))
    });
    let cause = sizes.map_or_else(
        || "the disk with the server's data directory is full".to_owned(),
        |(data, free, all)| {
            format!(
                "the server's data directory `{}` is on a file system of {all} MB ({free} MB free)",
                data.display()
            )
        },
    );
    format!(
        "{cause}; free some space (`kapsel-testdb sweep`), move a managed server's data with `server.state_dir`, or start the container \
         with a larger --shm-size or tmpfs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_named_if_the_server_means_it() {
        let here = std::env::temp_dir();
        for error in [
            "could not resize shared memory segment \"/PostgreSQL.3108906702\" to 8388608 bytes: No space left on device",
            "konnte Größe des Shared-Memory-Segments \"/PostgreSQL.3108906702\" nicht auf 8388608 Bytes ändern",
        ] {
            let text = no_space_message(error, Some(&here));
            assert!(
                text.contains("`/dev/shm`") && text.contains("--shm-size"),
                "{text}"
            );
            assert!(!text.contains("server.state_dir"), "{text}");
        }
        let text = no_space_message("could not extend file \"base/5/1\"", Some(&here));
        assert!(text.contains("is on a file system of"), "{text}");
    }

    #[test]
    fn directory_sizes_and_remedies_are_named() {
        let text = full_disk_message(Some(&std::env::temp_dir()));
        for part in [
            "is on a file system of",
            "MB free",
            "`server.state_dir`",
            "--shm-size",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(full_disk_message(None).contains("is full"));
    }
}
