//! The services file, services(5).

use std::collections::HashMap;

use super::file::lines;

/// A services file.
#[derive(Clone, Debug, Default)]
pub struct Services {
    ports: HashMap<(String, String), u16>,
    names: HashMap<(u16, String), String>,
}

impl Services {
    /// Reads a file; lines without `PORT/PROTOCOL` are left out.
    pub fn parse(text: &[u8]) -> Services {
        let mut services = Services::default();
        for fields in lines(text) {
            let fields: Vec<&str> = fields.filter_map(|field| std::str::from_utf8(field).ok()).collect();
            let [name, port, aliases @ ..] = &fields[..] else { continue };
            let Some((port, protocol)) = port.split_once('/') else { continue };
            let Ok(port) = port.parse::<u16>() else { continue };
            // The first line counts.
            for name in std::iter::once(name).chain(aliases) {
                services.ports.entry((name.to_string(), protocol.to_owned())).or_insert(port);
            }
            services.names.entry((port, protocol.to_owned())).or_insert_with(|| name.to_string());
        }
        services
    }

    /// The port of a service, whose case matters, as getservbyname(3).
    pub fn port(&self, name: &str, protocol: &str) -> Option<u16> {
        self.ports.get(&(name.to_owned(), protocol.to_owned())).copied()
    }

    /// The service at a port, as getservbyport(3).
    pub fn name(&self, port: u16, protocol: &str) -> Option<&str> {
        self.names.get(&(port, protocol.to_owned())).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_ports() {
        let services = Services::parse(
            b"http 80/tcp www web # World Wide Web\ndomain 53/tcp\ndomain\t53/udp\nhttp 8080/tcp\nodd 1\nodder x/tcp\n\
              alt 80/tcp\nlast 99999/tcp\n",
        );
        assert_eq!(services.port("http", "tcp"), Some(80));
        assert_eq!(services.port("web", "tcp"), Some(80));
        assert_eq!(services.port("http", "udp"), None);
        assert_eq!(services.port("HTTP", "tcp"), None);
        assert_eq!(services.port("domain", "udp"), Some(53));
        assert_eq!(services.port("last", "tcp"), None);
        assert_eq!(services.name(80, "tcp"), Some("http"));
        assert_eq!(services.name(53, "dccp"), None);
    }
}
