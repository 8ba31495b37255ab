//! A server that says it is PostgreSQL 12: just enough of the protocol to be asked for its version.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// It answers until the test process ends.
pub struct OldServer {
    /// Where it listens.
    pub port: u16,
}

/// What the settings query asks for: name, type and value.
const ROW: &[(&str, u32, &str)] = &[
    ("version_num", 23, "120022"),
    ("role", 25, "app"),
    ("can_create", 16, "t"),
    ("superuser", 16, "f"),
    ("fsync", 16, "f"),
    ("backend", 23, "4711"),
    ("started_at", 20, "1700000000000000"),
    ("settings", 25, "{}"),
    (
        "sessions",
        25,
        r#"{"usable": 97, "max_connections": 100, "by_database": {}}"#,
    ),
    ("base_locale", 25, "UTF8/C/C"),
    ("base_oid", 20, "12345"),
    ("base_open", 16, "f"),
    ("role_settings", 25, ""),
];

impl OldServer {
    /// Listens on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
        Self { port }
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    const SSL_REQUEST: u32 = 80_877_103;
    let startup = read_body(&mut stream)?;
    if startup[..4] == SSL_REQUEST.to_be_bytes() {
        stream.write_all(b"N")?;
        read_body(&mut stream)?;
    }
    let mut hello = message(b'R', &0_u32.to_be_bytes());
    hello.extend(message(b'K', &[0; 8]));
    hello.extend(message(b'Z', b"I"));
    stream.write_all(&hello)?;
    let mut kind = [0];
    while stream.read_exact(&mut kind).is_ok() && kind != *b"X" {
        read_body(&mut stream)?;
        if kind == *b"Q" {
            stream.write_all(&answer())?;
        }
    }
    Ok(())
}

fn answer() -> Vec<u8> {
    let count = u16::try_from(ROW.len()).expect("few columns").to_be_bytes();
    let (mut description, mut row) = (count.to_vec(), count.to_vec());
    for (name, oid, value) in ROW {
        description.extend(name.as_bytes());
        // End of name, table, column, type, its size and modifier, text format.
        description.extend([0; 7]);
        description.extend(oid.to_be_bytes());
        description.extend([0xff; 6]);
        description.extend([0; 2]);
        row.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
        row.extend(value.as_bytes());
    }
    let mut bytes = message(b'C', b"SELECT 0\0");
    bytes.extend(message(b'T', &description));
    bytes.extend(message(b'D', &row));
    bytes.extend(message(b'C', b"SELECT 1\0"));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&[kind], length.as_slice(), body].concat()
}

fn read_body(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
    stream.read_exact(&mut body)?;
    Ok(body)
}
