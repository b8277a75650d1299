//! Asking the servers: time-outs, retries, UDP and then TCP. Read RFC 1035 §4.2 and RFC 7766 first.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use domain::base::Header;
use ioth::net::{TcpStream, UdpSocket};
use ioth::{Errno, Stack};

use super::message::{Failure, Query, Verdict, judge};
use crate::task::until;

/// How many servers are asked (`MAXNS` of resolv.conf(5)).
const MOST_SERVERS: usize = 3;
/// How often each of them (`attempts` of resolv.conf(5)).
const ATTEMPTS: usize = 2;
/// How long is waited for one (`timeout` of resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(5);
/// How many datagrams that are no answer are taken from a server before it is given up for that time: each might have been
/// a lucky guess of somebody else.
const STRANGERS: usize = 32;
/// The longest question that is sent as a datagram, in bytes (RFC 1035 §4.2.1).
const LONGEST_DATAGRAM: usize = 512;

/// The servers of a node.
#[derive(Debug)]
pub(super) struct Servers {
    stack: Stack,
    addrs: Vec<SocketAddr>,
    /// How long is waited for one.
    pub(super) patience: Duration,
}

impl Servers {
    pub(super) fn new(stack: Stack, servers: &[IpAddr]) -> Servers {
        let addrs = servers.iter().take(MOST_SERVERS).map(|&ip| SocketAddr::new(ip, 53)).collect();
        Servers { stack, addrs, patience: PATIENCE }
    }

    /// Asks one server after the other until one answers.
    ///
    /// # Errors
    /// [`Failure::Rejected`], [`Failure::Unreachable`]; without servers as with one that refuses.
    pub(super) async fn ask(&self, query: &Query) -> Result<Vec<u8>, Failure> {
        let mut failure = Failure::Unreachable(Errno::ECONNREFUSED);
        for _ in 0..ATTEMPTS {
            for &server in &self.addrs {
                match self.ask_one(server, query).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Rejected) => failure = Failure::Rejected,
                    Err(other) if failure != Failure::Rejected => failure = other,
                    Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    async fn ask_one(&self, server: SocketAddr, query: &Query) -> Result<Vec<u8>, Failure> {
        let messages = std::iter::once(&query.message).chain(&query.plain);
        let mut last = None;
        for message in messages {
            let (verdict, mut answer) = self.exchange(server, message).await.map_err(unreachable)?;
            // That the data are authentic is believed of trusted servers only, which nobody said that this is (`trust-ad`).
            Header::for_message_slice_mut(&mut answer).set_ad(false);
            match verdict {
                Verdict::Answer | Verdict::Truncated => return Ok(answer),
                // RFC 6891 §7: "Such behavior [FORMERR] ... the requestor SHOULD retry without EDNS".
                Verdict::NotUnderstood | Verdict::Rejected | Verdict::Stranger => {
                    last = Some((verdict, answer))
                }
            }
            if verdict == Verdict::Rejected {
                break;
            }
        }
        match last {
            Some((Verdict::NotUnderstood, answer)) => Ok(answer),
            _ => Err(Failure::Rejected),
        }
    }

    /// One question to one server, as a datagram if it can be.
    async fn exchange(&self, server: SocketAddr, query: &[u8]) -> io::Result<(Verdict, Vec<u8>)> {
        if query.len() <= LONGEST_DATAGRAM {
            let (verdict, answer) = self.timely(self.by_udp(server, query)).await?;
            if verdict != Verdict::Truncated {
                return Ok((verdict, answer));
            }
        }
        self.timely(self.by_tcp(server, query)).await
    }

    async fn by_udp(&self, server: SocketAddr, query: &[u8]) -> io::Result<(Verdict, Vec<u8>)> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A socket of its own, for a port that cannot be guessed; connected, it hears the server alone.
        let socket = UdpSocket::bind_on(&self.stack, (any, 0))?;
        socket.connect(server)?;
        socket.send_async(query).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        for _ in 0..STRANGERS {
            let len = socket.recv_async(&mut buffer).await?;
            let verdict = judge(query, &buffer[..len]);
            if verdict != Verdict::Stranger {
                buffer.truncate(len);
                return Ok((verdict, buffer));
            }
        }
        Err(Errno::EPROTO.into())
    }

    async fn by_tcp(&self, server: SocketAddr, query: &[u8]) -> io::Result<(Verdict, Vec<u8>)> {
        let stream = TcpStream::connect_async(&self.stack, server).await?;
        let len = u16::try_from(query.len()).map_err(|_| Errno::EMSGSIZE)?;
        // RFC 7766 §8: length and message in one go.
        stream.write_all_async(&[&len.to_be_bytes(), query].concat()).await?;
        let mut len = [0; 2];
        read(&stream, &mut len).await?;
        let mut answer = vec![0; u16::from_be_bytes(len).into()];
        read(&stream, &mut answer).await?;
        match judge(query, &answer) {
            Verdict::Stranger => Err(Errno::EPROTO.into()),
            verdict => Ok((verdict, answer)),
        }
    }

    async fn timely<T>(&self, job: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        until(Instant::now() + self.patience, job).await.unwrap_or_else(|| Err(Errno::ETIMEDOUT.into()))
    }
}

async fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read_async(&mut buffer[filled..]).await? {
            0 => return Err(Errno::ECONNRESET.into()),
            len => filled += len,
        }
    }
    Ok(())
}

fn unreachable(error: io::Error) -> Failure {
    Failure::Unreachable(crate::node::errno(error))
}
