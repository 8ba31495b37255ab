//! Sockets that listen on this machine.

/// The inodes of the sockets that listen on a TCP port. A socket keeps its inode as long as it exists, so equal inodes are the same sockets.
/// Empty without `/proc`, and for a port that the kernel forwards.
pub fn listening_sockets(port: u16) -> Vec<u64> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let texts = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok());
    let mut inodes: Vec<u64> = texts.flat_map(|text| listening(&text, port)).collect();
    inodes.sort_unstable();
    inodes
}

/// The state of a listening socket in the tables.
const LISTEN: &str = "0A";

fn listening(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        fields.get(9).filter(|_| matches)?.parse().ok()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn another_socket_on_the_same_port_is_another_one() {
        use std::net::TcpListener;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let first = listening_sockets(address.port());
        assert_eq!(first.len(), 1);
        assert_eq!(listening_sockets(address.port()), first);
        drop(listener);
        assert!(listening_sockets(address.port()).is_empty());
        let _again = TcpListener::bind(address).expect("the same port");
        assert_ne!(listening_sockets(address.port()), first);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0\n\
            1: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100 0 0 10 0\n\
            2: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 12347 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 0x1538), [12345]);
    }
}
