//! What to say when the server's data has filled the place where it is.

use std::path::Path;

use crate::platform;

/// SQLSTATE 53100 of a server whose data is at `place`, as far as that is known and on this host: the room and the remedies.
pub fn complaint(place: Option<&Path>) -> String {
    let room = place.and_then(|place| {
        let (free, all) = (platform::free_bytes(place)?, platform::disk_size(place)?);
        Some((place, free >> 20, all >> 20))
    });
    let room = room.map_or_else(
        || "the disk that the server's data is on is full".to_owned(),
        |(place, free, all)| {
            format!(
                "the server's data, `{}`, is where there is room for {all} MB in all ({free} MB are free now)",
                place.display()
            )
        },
    );
    format!(
        "{room}; free some (`kapsel-testdb sweep`), move a managed server's data with `server.state_dir`, or start the container with a \
         larger --shm-size or tmpfs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_the_room_and_the_remedies_are_named() {
        let text = complaint(Some(&std::env::temp_dir()));
        for part in [
            "MB in all",
            "MB are free",
            "`server.state_dir`",
            "--shm-size",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(complaint(None).contains("is full"));
    }
}
