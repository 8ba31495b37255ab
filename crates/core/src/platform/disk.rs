//! The message for a full disk under the server's data.

use std::path::Path;

use crate::platform;

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
