//! Parses published ports and the endpoints of container engines. Pure functions.

use std::net::IpAddr;

use url::Url;

/// The published port of a container on the engine's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The IP address it listens on; `None` for all.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// The host to connect to: the engine's host if it is another machine, else this machine.
    pub fn host(&self, remote_engine: Option<&str>) -> String {
        match (remote_engine, self.ip) {
            (Some(host), _) => host.to_owned(),
            (None, Some(ip)) => ip.to_string(),
            (None, None) => "127.0.0.1".to_owned(),
        }
    }
}

/// Parses the output of `port SERVICE PORT`: a line for each address that the port is published on, such as `0.0.0.0:49154`,
/// `[::]:49154` or `:::49154`; `podman-compose` prints the port alone. IPv4 is preferred: if an engine publishes on both, only IPv4
/// is certain to be forwarded. For an unpublished port the output is an empty line or port 0.
pub fn endpoint(text: &str) -> Option<Endpoint> {
    let mut found: Vec<Endpoint> = text.lines().filter_map(parse_line).collect();
    found.sort_by_key(|e| e.ip.is_some_and(|ip| ip.is_ipv6()));
    found.into_iter().next()
}

fn parse_line(line: &str) -> Option<Endpoint> {
    let line = line.trim();
    let (host, port) = line.rsplit_once(':').unwrap_or(("", line));
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host.trim_matches(['[', ']']);
    let ip = match host.parse::<IpAddr>() {
        // All IPv6 addresses only.
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Some(std::net::Ipv6Addr::LOCALHOST.into()),
        Ok(ip) if ip.is_unspecified() => None,
        Ok(ip) => Some(ip),
        Err(_) if host.is_empty() => None,
        Err(_) => return None,
    };
    Some(Endpoint { ip, port })
}

/// The host of an engine's endpoint (`tcp://10.0.0.5:2376`, `ssh://me@build`), unless it is this machine.
pub fn remote_host(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok()?;
    if !matches!(url.scheme(), "tcp" | "ssh" | "http" | "https") {
        return None;
    }
    let host = url.host_str()?.trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    (!is_local && !host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_every_tool_is_parsed() {
        for (text, host, port) in [
            ("0.0.0.0:49154\n", "127.0.0.1", 49154),
            ("127.0.0.1:54329\n", "127.0.0.1", 54329),
            ("0.0.0.0:49154\n[::]:49155\n", "127.0.0.1", 49154),
            ("[::]:49155\n0.0.0.0:49154\n", "127.0.0.1", 49154),
            (":::49155\n", "::1", 49155),
            ("[::1]:5432", "::1", 5432),
            ("192.0.2.7:5432", "192.0.2.7", 5432),
            (":5432", "127.0.0.1", 5432),
            ("49154\n", "127.0.0.1", 49154),
        ] {
            let found = endpoint(text).unwrap_or_else(|| panic!("nothing in {text:?}"));
            assert_eq!((&*found.host(None), found.port), (host, port), "{text:?}");
            assert_eq!(found.host(Some("build")), "build");
        }
    }

    #[test]
    fn a_port_that_is_not_published_is_none() {
        for text in [
            "",
            "\n",
            ":0\n",
            "0.0.0.0:0",
            "0",
            "no port 5432/tcp",
            "invalid IP:0",
        ] {
            assert_eq!(endpoint(text), None, "{text:?}");
        }
    }

    #[test]
    fn remote_engines_are_recognized() {
        for (endpoint, host) in [
            ("unix:///var/run/docker.sock", None),
            ("npipe:////./pipe/docker_engine", None),
            ("tcp://127.0.0.1:2375", None),
            ("tcp://[::1]:2375", None),
            ("tcp://localhost:2375", None),
            ("tcp://10.0.0.5:2376", Some("10.0.0.5")),
            ("ssh://me@build.example", Some("build.example")),
            ("", None),
        ] {
            assert_eq!(remote_host(endpoint).as_deref(), host, "{endpoint}");
        }
    }
}
