//! Sets of ports.

/// A set of port numbers: one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortSet {
    words: Vec<u64>,
}

impl PortSet {
    /// Whether the set changed.
    pub(super) fn insert(&mut self, port: u16) -> bool {
        let (word, bit) = place(port);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let word = &mut self.words[word];
        let before = *word;
        *word |= bit;
        before & bit == 0
    }

    /// Whether the set changed.
    pub(super) fn remove(&mut self, port: u16) -> bool {
        let (word, bit) = place(port);
        let Some(word) = self.words.get_mut(word) else { return false };
        let before = *word;
        *word &= !bit;
        before & bit != 0
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        let (word, bit) = place(port);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.checked_sub(1)?;
                Some(at as u16 * 64 + bit as u16)
            })
        })
    }
}

fn place(port: u16) -> (usize, u64) {
    (usize::from(port / 64), 1 << (port % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_set(steps in proptest::collection::vec((any::<bool>(), prop_oneof![0..200u16, any::<u16>()]), 0..60)) {
            let (mut set, mut model) = (PortSet::default(), BTreeSet::new());
            for (insert, port) in steps {
                let changed = if insert { model.insert(port) } else { model.remove(&port) };
                prop_assert_eq!(if insert { set.insert(port) } else { set.remove(port) }, changed);
                prop_assert!(set.contains(port) == insert);
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }
    }
}
