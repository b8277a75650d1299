//! Ancillary data that finds too little room.

/// Alignment and size of a `struct cmsghdr`'s parts, as cmsg(3) has them.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGN: usize = size_of::<usize>();

/// Cuts what the node has laid out to `room` bytes, as the kernel does when it puts one message after the other: how many
/// bytes are left, and whether anything was lost.
pub(crate) fn cut(control: &mut [u8], room: usize) -> (usize, bool) {
    if control.len() <= room {
        return (control.len(), false);
    }
    let mut at = 0;
    loop {
        let Some(len) =
            control.get(at..).and_then(|rest| rest.first_chunk()).copied().map(usize::from_ne_bytes)
        else {
            return (at.min(room), true);
        };
        let end = at.saturating_add(len);
        if len < HEADER || end > control.len() || room < at + HEADER {
            return (at.min(room), true);
        }
        if end > room {
            // The kernel gives the part that fits, and says so in the header.
            control[at..at + ALIGN].copy_from_slice(&(room - at).to_ne_bytes());
            return (room, true);
        }
        at = end.next_multiple_of(ALIGN);
        if at >= control.len() {
            // Only the padding behind the last one did not fit.
            return (room, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages: of 4 bytes (24 with padding) and 12 bytes (32 with padding) of data.
    fn two() -> Vec<u8> {
        let mut bytes = Vec::new();
        for data in [4usize, 12] {
            bytes.extend((HEADER + data).to_ne_bytes());
            bytes.extend(0i32.to_ne_bytes());
            bytes.extend(8i32.to_ne_bytes());
            bytes.extend(vec![0xab; data.next_multiple_of(ALIGN)]);
        }
        bytes
    }

    #[test]
    fn what_fits_stays() {
        let mut control = two();
        let len = control.len();
        assert_eq!(cut(&mut control, len), (len, false));
        assert_eq!(cut(&mut control, len + 8), (len, false));
        assert_eq!(cut(&mut [], 0), (0, false));
    }

    #[test]
    fn the_rest_is_cut_as_by_the_kernel() {
        assert_eq!(cut(&mut two(), 0), (0, true));
        assert_eq!(cut(&mut two(), HEADER - 1), (0, true));
        let mut control = two();
        assert_eq!(cut(&mut control, HEADER + 2), (HEADER + 2, true));
        assert_eq!(control[..8], (HEADER + 2).to_ne_bytes());
        assert_eq!(cut(&mut two(), 24), (24, true), "one whole");
        assert_eq!(cut(&mut two(), 24 + HEADER - 1), (24, true), "no room for a second header");
        assert_eq!(cut(&mut two(), 24 + HEADER + 12), (24 + HEADER + 12, false), "but for padding");
    }

    #[test]
    fn nonsense_ends_it() {
        assert_eq!(cut(&mut [0; 40], 24), (0, true));
        assert_eq!(cut(&mut [0xff; 40], 24), (0, true));
        assert_eq!(cut(&mut [1; 4], 2), (0, true));
    }
}
