//! A reply's payload that is made item by item.

use ioth_node_proto::{ADDR_MAX, Item, REQUEST_ROOM, Reply};

/// The items of a [`Row`](ioth_node_proto::Row), as many as a reply has room for.
#[derive(Debug, Default)]
pub(crate) struct RowWriter {
    bytes: Vec<u8>,
}

impl RowWriter {
    const ROOM: usize = REQUEST_ROOM - Reply::LEN;
    /// More than any item has beside text and counters.
    const OVERHEAD: usize = 32 + 3 * ADDR_MAX;

    /// Adds an item; false when there is no room left, or it is longer than items can be.
    pub(crate) fn push(&mut self, item: &Item<'_>) -> bool {
        let at = self.bytes.len();
        let text = match item {
            Item::Name(bytes) | Item::Alias(bytes) | Item::Address(bytes) | Item::Service(bytes) => {
                bytes.len()
            }
            Item::Interface(interface) => interface.name.len() + interface.stats.len(),
            _ => 0,
        };
        self.bytes.resize((at + RowWriter::OVERHEAD + text).min(RowWriter::ROOM), 0);
        let len = item.emit(&mut self.bytes[at..]);
        self.bytes.truncate(at + len.unwrap_or(0));
        len.is_some()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_where_the_reply_does() {
        let mut row = RowWriter::default();
        let address = Item::Address(&[0; 16]);
        let count = (0..).take_while(|_| row.push(&address)).count();
        assert_eq!(count, RowWriter::ROOM / 20);
        let bytes = row.into_bytes();
        assert!(bytes.len() <= RowWriter::ROOM);
        assert_eq!(ioth_node_proto::Row::new(&bytes).count(), count);
        assert!(!RowWriter::default().push(&Item::Name(&[b'a'; RowWriter::ROOM])), "too long");
    }
}
