//! Interfaces and their addresses, as programs ask for them by getifaddrs(3) and if_nametoindex(3).

use ioth::{Errno, Stack};

/// A row of entries, each: index (4 bytes), flags (4), MTU (4), length of the name, of the hardware address, number of
/// addresses (1 byte each), 1 byte 0; the name; the hardware address; for each address: family (1 byte), prefix
/// length (1), scope (1), 1 byte 0, the address (16 bytes, IPv4 in the first 4).
pub(crate) fn list(stack: &Stack) -> Result<Vec<u8>, Errno> {
    let route = stack.route().map_err(|error| error.errno())?;
    let _ = route;
    Err(Errno::ENOSYS)
}
