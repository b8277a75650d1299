//! What both ends of a connection do, whatever stack they are on.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Prime, so that no lost or repeated segment, window or buffer hides.
const PATTERN: usize = 65_521;

/// The bytes that every transfer repeats.
fn pattern() -> Vec<u8> {
    // Knuth's MMIX generator, of which the upper bits are good.
    let mut state = 1u64;
    (0..PATTERN)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

/// Sends `len` bytes.
pub(crate) fn send(mut to: impl Write, len: usize) -> io::Result<()> {
    let pattern = pattern();
    let mut left = len;
    while left > 0 {
        let n = left.min(PATTERN);
        to.write_all(&pattern[..n])?;
        left -= n;
    }
    Ok(())
}

/// Receives exactly what [`send`] sent, and the end of the stream.
pub(crate) fn check(mut from: impl Read, len: usize) -> io::Result<()> {
    let pattern = pattern();
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) if received == len => return Ok(()),
            Ok(0) => return Err(io::Error::other(format!("the end after {received} of {len} bytes"))),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{error} after {received} of {len} bytes")));
            }
        };
        let mut data = &buffer[..n];
        while !data.is_empty() {
            let expected = &pattern[received % PATTERN..];
            let n = data.len().min(expected.len());
            if data[..n] != expected[..n] {
                return Err(io::Error::other(format!(
                    "wrong data between bytes {received} and {}",
                    received + n
                )));
            }
            received += n;
            data = &data[n..];
        }
        if received > len {
            return Err(io::Error::other(format!("{received} bytes instead of {len}")));
        }
    }
}

/// Sends back what comes, until its end.
pub(crate) fn echo(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => stream.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a few bytes to an [`echo`], and gets them back.
pub(crate) fn ask(mut stream: impl Read + Write, question: u32) -> io::Result<()> {
    stream.write_all(&question.to_be_bytes())?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    match answer == question.to_be_bytes() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{answer:02x?} is no answer to {question:#x}"))),
    }
}

/// Times something that moves `bytes`, and prints the throughput.
pub(crate) fn report(what: &str, bytes: usize, transfer: impl FnOnce()) {
    let start = Instant::now();
    transfer();
    figure(what, bytes, start.elapsed());
}

fn figure(what: &str, bytes: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    let gigabits = bytes as f64 * 8.0 / seconds / 1e9;
    println!("{what}: {bytes} bytes in {seconds:.2} s, {gigabits:.2} Gbit/s");
}
