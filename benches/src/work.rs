//! The workloads: the same code for every contender, one thread at each end.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::node::{Node, Tcp};
use crate::row::Row;

/// Two nodes that reach each other; `addr` is the second's.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) addr: SocketAddr,
    /// The address under which the first knows the second, where that is another.
    pub(crate) seen_as: Option<IpAddr>,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Of datagrams, the share that did not arrive.
    pub(crate) lost: Option<f64>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Sample { value, lost: None }
    }
}

/// Bytes of one call.
const CHUNK: usize = 128 << 10;
/// A stream that stands still for so long is broken.
const STALLED: Duration = Duration::from_secs(5);
/// Connections of a round at most: TIME_WAIT has to leave ports for the next rounds.
const CONNECTIONS: usize = 2000;

/// Gbit/s of one connection.
pub(crate) fn bulk(pair: &Pair, span: Duration) -> io::Result<Sample> {
    stream(pair, receive, move |stream| send(stream, span)).map(|(rate, _)| rate.into())
}

/// Gbit/s of one connection, from the one who was called to the caller.
pub(crate) fn bulk_back(pair: &Pair, span: Duration) -> io::Result<Sample> {
    stream(pair, move |stream| send(stream, span), receive).map(|(_, rate)| rate.into())
}

/// Gbit/s until the end of the stream.
fn receive(mut stream: Tcp) -> io::Result<f64> {
    let mut buffer = vec![0; CHUNK];
    // What came before the clock started does not count.
    stream.read_exact(&mut buffer[..1])?;
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()),
            len => bytes += len as u64,
        }
    }
}

fn send(mut stream: Tcp, span: Duration) -> io::Result<usize> {
    let chunk = vec![0x5a; CHUNK];
    let start = Instant::now();
    while start.elapsed() < span {
        stream.write_all(&chunk)?;
    }
    stream.shutdown_write()?;
    // Until the other end has it all.
    stream.read(&mut [0])
}

/// Microseconds of a round trip of one byte.
pub(crate) fn ping_pong(pair: &Pair, span: Duration) -> io::Result<Sample> {
    stream(pair, echo, move |stream| ping(stream, span)).map(|(_, trip)| trip.into())
}

/// Until the end of the stream.
fn echo(mut stream: Tcp) -> io::Result<f64> {
    stream.set_nodelay()?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(0.0)
}

fn ping(mut stream: Tcp, span: Duration) -> io::Result<f64> {
    stream.set_nodelay()?;
    let (mut byte, mut trips) = ([1], 0);
    let start = Instant::now();
    while start.elapsed() < span {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        trips += 1;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(trips))
}

/// The answering end of a row between processes, once; `tell` hears of the port. What a stream brought in Gbit/s.
pub(crate) fn answer(node: &Node, row: Row, tell: impl FnOnce(u16)) -> io::Result<f64> {
    let listener = node.listen(SocketAddr::from(([0, 0, 0, 0], 0)))?;
    tell(listener.local_addr()?.port());
    let stream = listener.accept()?;
    stream.set_read_timeout(STALLED)?;
    match row {
        Row::PingProcesses => echo(stream),
        _ => receive(stream),
    }
}

/// The calling end: microseconds of a round trip, where that is asked for.
pub(crate) fn call(node: &Node, addr: SocketAddr, row: Row, span: Duration) -> io::Result<f64> {
    node.prepare_streams(1)?;
    let node = node.clone();
    let work = move || {
        let stream = node.connect(addr)?;
        stream.set_read_timeout(STALLED)?;
        match row {
            Row::PingProcesses => ping(stream, span),
            _ => send(stream, span).map(|_| 0.0),
        }
    };
    Task::start("client", work)?.end(Instant::now() + HANGING)
}

/// Connections per second, one after the other: each is made, accepted, closed by the server, and closed.
pub(crate) fn connections(pair: &Pair, span: Duration) -> io::Result<Sample> {
    pair.a.prepare_streams(CONNECTIONS)?;
    let last = Arc::new(AtomicBool::new(false));
    let is_last = last.clone();
    let serve = move |node: &Node, addr, ready: Ready| {
        let listener = node.listen(addr)?;
        ready.tell(listener.local_addr()?);
        loop {
            // Looked at while the client still waits for this connection's end: the next one may be the last.
            let _accepted = listener.accept()?;
            if is_last.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    };
    let connect = move |node: &Node, addr| {
        // Waiting for the server keeps its backlog from overflowing, which would be measured instead: a second each.
        let once = || {
            let mut stream = node.connect(addr)?;
            stream.set_read_timeout(STALLED)?;
            stream.read(&mut [0])
        };
        // Resolves the neighbours.
        once()?;
        let before = node.socket_cost();
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < span && count < CONNECTIONS - 2 {
            once()?;
            count += 1;
        }
        // Where another process made the sockets ahead, what that took is part of the price.
        let spent = start.elapsed() + (node.socket_cost() - before);
        last.store(true, Ordering::Relaxed);
        once()?;
        Ok(count as f64 / spent.as_secs_f64())
    };
    both(pair, serve, connect).map(|((), rate)| rate.into())
}

/// Datagrams per second that arrived, and the share that did not.
pub(crate) fn udp(pair: &Pair, span: Duration) -> io::Result<Sample> {
    let receive = |node: &Node, addr, ready: Ready| {
        let socket = node.udp(addr)?;
        socket.set_read_timeout(STALLED)?;
        ready.tell(socket.local_addr()?);
        let mut buffer = [0; 2048];
        // Resolves the neighbours, and is not counted.
        socket.recv(&mut buffer)?;
        socket.set_read_timeout(SILENCE)?;
        let (mut count, mut first, mut last) = (0, None, (Instant::now(), 0));
        loop {
            match socket.recv(&mut buffer) {
                Ok(_) if buffer[0] == LAST => break,
                Ok(_) => {
                    count += 1;
                    // The clock would be seen in the figure.
                    if count % 64 == 1 {
                        last = (Instant::now(), count);
                        first.get_or_insert(last);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let first = first.unwrap_or(last);
        let elapsed = (last.0 - first.0).as_secs_f64();
        Ok((count, if elapsed > 0.0 { (last.1 - first.1) as f64 / elapsed } else { 0.0 }))
    };
    let send = move |node: &Node, addr| {
        let socket = node.udp(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        socket.connect(addr)?;
        let mut datagram = [0; 64];
        socket.send(&datagram)?;
        // Meanwhile the neighbour answers.
        thread::sleep(Duration::from_millis(20));
        let (start, mut count) = (Instant::now(), 0u64);
        while start.elapsed() < span {
            for _ in 0..16 {
                match socket.send(&datagram) {
                    // A queue on the way is full: sent and lost.
                    Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(error),
                    _ => count += 1,
                }
            }
        }
        // Now that the queues are empty.
        thread::sleep(Duration::from_millis(50));
        datagram[0] = LAST;
        socket.send(&datagram)?;
        Ok(count)
    };
    let ((received, rate), sent) = both(pair, receive, send)?;
    let lost = 1.0 - received as f64 / sent as f64;
    Ok(Sample { value: rate, lost: Some(lost.max(0.0)) })
}

/// A receiver waits so long for a datagram before it says that there are no more.
const SILENCE: Duration = Duration::from_millis(300);
/// The first byte of the last datagram.
const LAST: u8 = 0xff;

/// One connection from the first node to the second.
fn stream<S: Send + 'static, C: Send + 'static>(
    pair: &Pair,
    server: impl FnOnce(Tcp) -> io::Result<S> + Send + 'static,
    client: impl FnOnce(Tcp) -> io::Result<C> + Send + 'static,
) -> io::Result<(S, C)> {
    pair.a.prepare_streams(1)?;
    let accept = |node: &Node, addr, ready: Ready| {
        let listener = node.listen(addr)?;
        ready.tell(listener.local_addr()?);
        let stream = listener.accept()?;
        stream.set_read_timeout(STALLED)?;
        server(stream)
    };
    let connect = |node: &Node, addr| {
        let stream = node.connect(addr)?;
        stream.set_read_timeout(STALLED)?;
        client(stream)
    };
    both(pair, accept, connect)
}

/// Tells the client where the server is.
struct Ready(mpsc::Sender<SocketAddr>);

impl Ready {
    fn tell(&self, addr: SocketAddr) {
        // A client that is not there any more has failed, which is told by itself.
        let _ = self.0.send(addr);
    }
}

/// Runs both ends, each in a thread that is in its node's namespace. A thread that hangs is left behind.
fn both<S: Send + 'static, C: Send + 'static>(
    pair: &Pair,
    server: impl FnOnce(&Node, SocketAddr, Ready) -> io::Result<S> + Send + 'static,
    client: impl FnOnce(&Node, SocketAddr) -> io::Result<C> + Send + 'static,
) -> io::Result<(S, C)> {
    let (tell, told) = mpsc::channel();
    let Pair { a, b, addr, seen_as } = pair.clone();
    let server = Task::start("server", move || {
        b.enter()?;
        server(&b, addr, Ready(tell))
    })?;
    let client = Task::start("client", move || {
        a.enter()?;
        let mut addr = told.recv().map_err(|_| io::Error::other("there is no server"))?;
        if let Some(ip) = seen_as {
            addr.set_ip(ip);
        }
        client(&a, addr)
    })?;
    let deadline = Instant::now() + HANGING;
    // A server that failed explains a client that did, but it may wait for a client in vain.
    match client.end(deadline) {
        Ok(client) => Ok((server.end(deadline)?, client)),
        Err(error) => match server.end(Instant::now() + Duration::from_millis(100)) {
            Err(first) if first.kind() != io::ErrorKind::TimedOut => {
                Err(io::Error::other(format!("{first}; {error}")))
            }
            _ => Err(error),
        },
    }
}

/// No round takes as long.
const HANGING: Duration = Duration::from_secs(15);

struct Task<T> {
    name: &'static str,
    result: mpsc::Receiver<io::Result<T>>,
}

impl<T: Send + 'static> Task<T> {
    fn start(name: &'static str, f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<Self> {
        let (tell, result) = mpsc::channel();
        let work = move || {
            // Nobody listens once the other end has failed.
            let _ = tell.send(f());
        };
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Task { name, result })
    }

    fn end(self, deadline: Instant) -> io::Result<T> {
        let name = self.name;
        match self.result.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}"))),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name}: hangs")))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other(format!("{name}: panicked"))),
        }
    }
}
