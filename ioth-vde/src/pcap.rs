//! `pcap://FILE{inner}`, `pcap://{inner}/file='FILE'`: records what goes through a link, both ways.
//!
//! The file is what tcpdump and Wireshark read (libpcap's format with nanoseconds, link type Ethernet),
//! and is complete after every batch, however the process ends. Super-frames are recorded whole, and
//! checksums as they are: between nodes that trust their memory they may not have been computed.
//!
//! Written by hand: the format is two small headers, and a crate for it would bring more than that.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use ioth_core::Errno;
use parking_lot::Mutex;

use crate::schemes::Spec;
use crate::vnl::{Keys, Params, syntax};
use crate::{Batch, Counters, Filter, Frame, Link, LinkError, Properties, Receiver};

/// A link whose frames are recorded.
#[derive(Debug)]
pub struct Pcap {
    inner: Arc<dyn Link>,
    recorder: Arc<Recorder>,
    /// Hashes of the frames that the link had no room for: they are in the file already.
    left: Mutex<VecDeque<u64>>,
    hasher: foldhash::fast::RandomState,
}

impl Pcap {
    /// Records what goes through `inner` into `output`, beginning with the file's header.
    ///
    /// # Errors
    /// The output's.
    pub fn new(inner: Arc<dyn Link>, output: impl Write + Send + 'static) -> io::Result<Self> {
        let mut output: Output = BufWriter::with_capacity(BUFFER, Box::new(output));
        output.write_all(&header())?;
        output.flush()?;
        Ok(Pcap {
            inner,
            recorder: Arc::new(Recorder { output: Mutex::new(Some(output)), missing: AtomicU64::new(0) }),
            left: Mutex::default(),
            hasher: foldhash::fast::RandomState::default(),
        })
    }

    /// Frames that went through and are not in the file, because it could not be written. The first error ends it.
    pub fn missing(&self) -> u64 {
        self.recorder.missing.load(Relaxed)
    }
}

impl Link for Pcap {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        self.inner.attach(Arc::new(Tap { recorder: self.recorder.clone(), receiver }))
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        // Before they are sent: the answer may come before `send` returns.
        {
            let mut left = self.left.lock();
            let known = frames.iter().zip(&*left).take_while(|(frame, hash)| self.hash(frame) == **hash);
            let known = known.count();
            left.clear();
            self.recorder.record(frames.iter().skip(known));
        }
        let result = self.inner.send(frames);
        if !frames.is_empty() {
            *self.left.lock() = frames.iter().map(|frame| self.hash(frame)).collect();
        }
        result
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner.set_filter(filter);
    }

    fn detach(&self) {
        self.inner.detach();
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

impl Pcap {
    fn hash(&self, frame: &Frame) -> u64 {
        self.hasher.hash_one(&frame[..])
    }
}

impl Drop for Pcap {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Records what arrives.
#[derive(Debug)]
struct Tap {
    recorder: Arc<Recorder>,
    receiver: Arc<dyn Receiver>,
}

impl Receiver for Tap {
    fn receive(&self, frames: &mut Batch) {
        self.recorder.record(frames.iter());
        self.receiver.receive(frames);
    }

    fn writable(&self) {
        self.receiver.writable();
    }

    fn down(&self, cause: LinkError) {
        self.receiver.down(cause);
    }
}

type Output = BufWriter<Box<dyn Write + Send>>;

/// Large enough that most batches are one write.
const BUFFER: usize = 64 << 10;

struct Recorder {
    /// `None` after an error: half a record would spoil what follows.
    output: Mutex<Option<Output>>,
    missing: AtomicU64,
}

impl Recorder {
    fn record<'a>(&self, frames: impl ExactSizeIterator<Item = &'a Frame>) {
        let count = frames.len() as u64;
        if count == 0 {
            return;
        }
        let mut output = self.output.lock();
        // In the lock, so that times do not go backwards in the file.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = output.as_mut().map(|output| {
            for frame in frames {
                output.write_all(&record(now.as_secs() as u32, now.subsec_nanos(), frame.len() as u32))?;
                output.write_all(frame)?;
            }
            output.flush()
        });
        if !matches!(written, Some(Ok(()))) {
            *output = None;
            self.missing.fetch_add(count, Relaxed);
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("missing", &self.missing).finish_non_exhaustive()
    }
}

/// Longest record, in bytes: readers refuse more.
const SNAPLEN: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html> §4; the magic says nanoseconds, and the byte order.
fn header() -> Vec<u8> {
    let mut header = Vec::with_capacity(24);
    header.extend(0xa1b2_3c4d_u32.to_le_bytes());
    header.extend(2u16.to_le_bytes());
    header.extend(4u16.to_le_bytes());
    header.extend([0; 8]);
    header.extend(SNAPLEN.to_le_bytes());
    header.extend(LINKTYPE_ETHERNET.to_le_bytes());
    header
}

/// The same §5: seconds, nanoseconds, captured and original length.
fn record(seconds: u32, nanos: u32, len: u32) -> [u8; 16] {
    let mut record = [0; 16];
    for (field, value) in record.chunks_exact_mut(4).zip([seconds, nanos, len, len]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    record
}

const KEYS: Keys = &["file"];

/// Opens `pcap://FILE{inner}`. The file is made, or emptied, for its owner's eyes only.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let parts = spec.nested()?;
    let params = Params::parse(parts.after, KEYS, spec.vnl)?;
    let path = match (parts.before, params.get("file")) {
        (path, None) if !path.is_empty() => path,
        ("", Some(path)) if !path.is_empty() => path,
        _ => {
            let what = "one file before the '{' or as file= behind the '}', such as pcap:///tmp/x.pcap{switch://lan}";
            return Err(syntax(format!("\"{}\" should have {what}", spec.vnl)));
        }
    };
    // First, as it may fail: a file is not to be emptied for nothing.
    let inner = spec.inner(parts.inner)?;
    let failed = |error: io::Error| LinkError::Os {
        what: format!("pcap://: writing to {path}"),
        errno: crate::errno(&error),
    };
    let file = create(Path::new(path)).map_err(failed)?;
    Ok(Arc::new(Pcap::new(inner, file).map_err(failed)?))
}

/// Makes a file for a capture, or empties it, for its owner's eyes only.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK a FIFO would make us wait for its reader.
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    // Whatever is slower than a file would hold up the nodes, or lose half records.
    if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::EINVAL.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checksum, Lan};

    #[derive(Clone, Debug, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(Errno::ENOSPC)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Ignore;

    impl Receiver for Ignore {
        fn receive(&self, frames: &mut Batch) {
            frames.clear();
        }

        fn writable(&self) {}

        fn down(&self, _: LinkError) {}
    }

    fn frame(n: u8) -> Vec<u8> {
        let mut frame = vec![n; 60];
        frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, n, 0x88, 0xb5]);
        frame
    }

    fn frames_of(mut file: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(file[..24], *b"\x4d\x3c\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0");
        file = &file[24..];
        let mut frames = Vec::new();
        while !file.is_empty() {
            assert_eq!(file[8..12], file[12..16]);
            let len = u32::from_le_bytes(file[8..12].try_into().unwrap()) as usize;
            frames.push(file[16..16 + len].to_vec());
            file = &file[16 + len..];
        }
        frames
    }

    #[test]
    fn both_directions() {
        let lan = Lan::new();
        let output = Shared::default();
        let pcap = Pcap::new(lan.port(), output.clone()).unwrap();
        let other = lan.port();
        pcap.attach(Arc::new(Ignore)).unwrap();
        other.attach(Arc::new(Ignore)).unwrap();
        assert_eq!(pcap.properties(), lan.config().properties);
        pcap.send(&mut [1, 2].map(|n| Frame::copy_of(&frame(n))).into()).unwrap();
        other.send(&mut [Frame::copy_of(&frame(3))].into()).unwrap();
        assert_eq!(frames_of(&output.0.lock()), [1, 2, 3].map(frame));
        assert_eq!((pcap.counters().tx_frames, pcap.counters().rx_frames, pcap.missing()), (2, 1, 0));
    }

    #[test]
    fn what_found_no_room_is_recorded_once() {
        #[derive(Debug)]
        struct OneByOne;
        impl Link for OneByOne {
            fn properties(&self) -> Properties {
                Properties { mtu: 1500, gso_max: 0, trusted: false }
            }
            fn attach(&self, _: Arc<dyn Receiver>) -> Result<(), LinkError> {
                Ok(())
            }
            fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
                frames.pop_front();
                Ok(())
            }
            fn detach(&self) {}
            fn counters(&self) -> Counters {
                Counters::default()
            }
        }
        let output = Shared::default();
        let pcap = Pcap::new(Arc::new(OneByOne), output.clone()).unwrap();
        let mut batch: Batch = [1, 2, 3].map(|n| Frame::copy_of(&frame(n))).into();
        pcap.send(&mut batch).unwrap();
        pcap.send(&mut batch).unwrap();
        batch.push_back(Frame::copy_of(&frame(4)));
        while !batch.is_empty() {
            pcap.send(&mut batch).unwrap();
        }
        pcap.send(&mut [Frame::copy_of(&frame(4))].into()).unwrap();
        assert_eq!(frames_of(&output.0.lock()), [1, 2, 3, 4, 4].map(frame));
    }

    #[test]
    fn a_full_disk_does_not_stop_the_link() {
        let lan = Lan::new();
        let pcap = Pcap::new(lan.port(), Full(100)).unwrap();
        for n in 0..3 {
            pcap.send(&mut [Frame::copy_of(&frame(n))].into()).unwrap();
        }
        assert_eq!((pcap.missing(), pcap.counters().tx_frames), (2, 3));
        assert!(Pcap::new(lan.port(), Full(10)).is_err());
    }

    #[test]
    fn tcpdump_reads_it() {
        let path = std::env::temp_dir().join(format!("ioth-pcap-{}.pcap", std::process::id()));
        let vnl = format!("pcap://{{pcap://{}{{switch://pcap-test}}}}/file='{0}2'", path.display());
        let link = crate::open(&vnl).unwrap();
        let mut big = Frame::new(60_000);
        big.fill(0);
        big.gso_size = std::num::NonZeroU16::new(1460);
        big.checksum = Checksum::Trusted;
        link.send(&mut [Frame::copy_of(&frame(1)), big].into()).unwrap();
        // It need not be closed for that.
        for file in [format!("{}", path.display()), format!("{}2", path.display())] {
            let output = std::process::Command::new("tcpdump")
                .args(["-e", "-n", "-r", &file])
                .output()
                .expect("tcpdump (supply it by: apt-get install tcpdump)");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(text.matches(" > ").count(), 2, "{text}");
            assert!(
                text.contains("02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff") && text.contains("length 60"),
                "{text}"
            );
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn wrong_vnls() {
        for wrong in ["pcap://{null://}", "pcap://x{null://}/file=y", "pcap://x", "pcap://{null://}/file="] {
            assert!(matches!(crate::open(wrong), Err(LinkError::Syntax(_))), "{wrong}");
        }
        assert_eq!(crate::open("pcap:///no/such/dir/x{null://}").unwrap_err().errno(), Errno::ENOENT);
        assert_eq!(crate::open("pcap:///dev/null{null://}").unwrap_err().errno(), Errno::EINVAL);
    }
}
