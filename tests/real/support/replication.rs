//! A session of a replication program, which sqlx cannot open.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::server::ROLE;

/// Logs [`ROLE`] in over a socket that trusts everybody.
pub fn replication_connection(folder: &Path, port: u16, database: &str) -> UnixStream {
    let socket = folder.join(format!(".s.PGSQL.{port}"));
    let mut stream = UnixStream::connect(socket).expect("a connection");
    let parameters = format!("user\0{ROLE}\0database\0{database}\0replication\0database\0\0");
    let length = u32::try_from(8 + parameters.len()).expect("a short message");
    let mut message = length.to_be_bytes().to_vec();
    // The version of the protocol: 3.0.
    message.extend(196_608_u32.to_be_bytes());
    message.extend(parameters.as_bytes());
    stream.write_all(&message).expect("a message");
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).expect("an answer");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).expect("all of it");
        assert_ne!(head[0], b'E', "{}", String::from_utf8_lossy(&body));
        // Ready for queries.
        if head[0] == b'Z' {
            return stream;
        }
    }
}
