//! What an ELF file says of the way it is loaded (elf(5), and ld.so(8)).

use std::fs::File;
use std::path::Path;

use object::Endianness;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{FileKind, ReadRef, elf};

/// What is looked at of a segment, in bytes: a path, or a few notes. A file may claim to be of any size.
const MAX_PART: u64 = 1 << 16;
/// The kernel takes program headers of 64 KiB together, of 32 bytes or more each.
const MAX_SEGMENTS: u32 = (1 << 16) / 32;
/// Go's linker puts a note of this owner and kind (cmd/link: ELF_NOTE_GOBUILDID_TAG) into what it makes.
const GO_OWNER: &[u8] = b"Go";
const GO_BUILD_ID: u32 = 4;

/// The parts of an ELF file that decide whether a library can be preloaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Elf {
    /// 32 or 64.
    bits: u8,
    machine: u16,
    /// The dynamic linker (PT_INTERP); a static program has none.
    linker: Option<Vec<u8>>,
    is_go: bool,
}

impl Elf {
    /// Reads what is there; `None` when it is no ELF file or cannot be read.
    pub(crate) fn read(file: &std::io::Result<File>) -> Option<Elf> {
        let cache = ReadCache::new(file.as_ref().ok()?);
        Elf::parse(&cache)
    }

    fn parse<'data>(data: impl ReadRef<'data>) -> Option<Elf> {
        match FileKind::parse(data).ok()? {
            FileKind::Elf32 => Elf::parse_as::<elf::FileHeader32<Endianness>, _>(data, 32),
            FileKind::Elf64 => Elf::parse_as::<elf::FileHeader64<Endianness>, _>(data, 64),
            _ => None,
        }
    }

    fn parse_as<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
        data: R,
        bits: u8,
    ) -> Option<Elf> {
        let header = H::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let mut elf = Elf { bits, machine: header.e_machine(endian).0, linker: None, is_go: false };
        if header.phnum(endian, data).ok()? > MAX_SEGMENTS {
            return None;
        }
        for segment in header.program_headers(endian, data).ok()? {
            if segment.p_filesz(endian).into() > MAX_PART {
                continue;
            }
            if let Ok(Some(path)) = segment.interpreter(endian, data) {
                elf.linker = Some(path.to_vec());
            }
            if let Ok(Some(mut notes)) = segment.notes(endian, data) {
                while let Ok(Some(note)) = notes.next() {
                    elf.is_go |= note.name() == GO_OWNER && note.n_type(endian).0 == GO_BUILD_ID;
                }
            }
        }
        Some(elf)
    }

    /// Whether the library that was built with `own` can be loaded: what to warn of, or why not.
    pub(crate) fn judge(&self, own: &Elf) -> Result<Vec<String>, String> {
        if self.bits != own.bits {
            return Err(format!(
                "it is a {}-bit program, and ioth's library is for {}-bit ones",
                self.bits, own.bits
            ));
        }
        if self.machine != own.machine {
            return Err("it is made for another kind of processor than ioth's library".to_owned());
        }
        let Some(linker) = &self.linker else {
            let kind = if self.is_go { "Go, " } else { "" };
            return Err(format!(
                "it is statically linked ({kind}no dynamic linker), and no library can be put into it"
            ));
        };
        let name = |linker: &[u8]| {
            let text = String::from_utf8_lossy(linker).into_owned();
            Path::new(&text).file_name().map_or(text.clone(), |name| name.to_string_lossy().into_owned())
        };
        if let Some(ours) = &own.linker
            && name(linker) != name(ours)
        {
            return Err(format!(
                "it has another C library ({} instead of {}) than ioth's library",
                name(linker),
                name(ours)
            ));
        }
        let mut warnings = Vec::new();
        if self.is_go {
            warnings.push(
                "a Go program makes its system calls itself: its sockets may be the host's, for all we can do".to_owned(),
            );
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// This test's own file: a dynamic program of this machine.
    fn own() -> Elf {
        Elf::read(&File::open("/proc/self/exe")).unwrap()
    }

    /// A 64-bit file in this machine's byte order: its header, program headers, and what they point to.
    fn file(segments: &[(elf::ProgramType, &[u8])]) -> Vec<u8> {
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(own().machine.to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
        for offset in [0u64, 64, 0] {
            bytes.extend(offset.to_ne_bytes());
        }
        bytes.extend(0u32.to_ne_bytes());
        for half in [64u16, 56, segments.len() as u16, 64, 0, 0] {
            bytes.extend(half.to_ne_bytes());
        }
        let mut at = 64 + 56 * segments.len() as u64;
        for (kind, content) in segments {
            bytes.extend(kind.0.to_ne_bytes());
            bytes.extend(4u32.to_ne_bytes());
            for word in [at, at, at, content.len() as u64, content.len() as u64, 4] {
                bytes.extend(word.to_ne_bytes());
            }
            at += content.len() as u64;
        }
        segments.iter().for_each(|(_, content)| bytes.extend_from_slice(content));
        bytes
    }

    fn go_note() -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4u32, 4, GO_BUILD_ID] {
            note.extend(word.to_ne_bytes());
        }
        note.extend(b"Go\0\0abcd");
        note
    }

    #[test]
    fn our_own_kind_is_judged_well() {
        assert!(own().linker.is_some());
        assert_eq!(own().judge(&own()), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_preloaded_is_told() {
        let linker = own().linker.unwrap();
        let linker = [&linker[..], b"\0"].concat();
        let note = go_note();
        let judge =
            |segments: &[(elf::ProgramType, &[u8])]| Elf::parse(&file(segments)[..]).unwrap().judge(&own());
        assert_eq!(judge(&[(elf::PT_INTERP, &linker)]), Ok(Vec::new()));
        assert!(judge(&[]).unwrap_err().contains("statically linked (no"));
        assert!(judge(&[(elf::PT_NOTE, &note)]).unwrap_err().contains("statically linked (Go"));
        let warnings = judge(&[(elf::PT_INTERP, &linker), (elf::PT_NOTE, &note)]).unwrap();
        assert!(warnings[0].contains("Go"), "{warnings:?}");
        let musl = judge(&[(elf::PT_INTERP, b"/lib/ld-musl-x86_64.so.1\0")]).unwrap_err();
        assert!(musl.contains("another C library"), "{musl}");
        let foreign = Elf { machine: own().machine ^ 1, ..own() };
        assert!(foreign.judge(&own()).unwrap_err().contains("processor"));
        let small = Elf { bits: own().bits ^ 96, ..own() };
        assert!(small.judge(&own()).unwrap_err().contains("-bit"));
    }

    proptest! {
        /// A file can be anything.
        #[test]
        fn no_file_makes_it_panic(
            begin in prop::collection::vec(any::<u8>(), 0..256),
            changes in prop::collection::vec((0..300usize, any::<u8>()), 0..8),
        ) {
            Elf::parse(&begin[..]);
            let mut bytes = file(&[(elf::PT_INTERP, b"/lib/ld.so\0"), (elf::PT_NOTE, &go_note()[..])]);
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Some(elf) = Elf::parse(&bytes[..]) {
                let _ = elf.judge(&own());
            }
            bytes.truncate(begin.len());
            Elf::parse(&bytes[..]);
        }
    }
}
