//! A set of offsets, kept as ranges: a lost piece of the log is one range, however many messages lay in it.

use gantry_proto::model::QueueOffset;
use std::collections::BTreeMap;

/// A set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    /// By first offset, each with the first one after it. They neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Offsets {
    pub(super) fn insert(&mut self, offset: QueueOffset) {
        if self.contains(offset) || offset.0 == u64::MAX {
            return;
        }
        let (mut first, mut end) = (offset.0, offset.0 + 1);
        if let Some(after) = self.ranges.remove(&end) {
            end = after;
        }
        if let Some((before, before_end)) = self.ranges.range(..first).next_back()
            && *before_end == first
        {
            first = *before;
        }
        self.ranges.insert(first, end);
        self.count += 1;
    }

    pub(super) fn contains(&self, offset: QueueOffset) -> bool {
        self.ranges.range(..=offset.0).next_back().is_some_and(|(_, end)| offset.0 < *end)
    }

    pub(super) fn remove(&mut self, offset: QueueOffset) {
        let holding = self.ranges.range(..=offset.0).next_back().map(|(first, end)| (*first, *end));
        let Some((first, end)) = holding.filter(|(_, end)| offset.0 < *end) else { return };
        self.ranges.remove(&first);
        if first < offset.0 {
            self.ranges.insert(first, offset.0);
        }
        if offset.0 + 1 < end {
            self.ranges.insert(offset.0 + 1, end);
        }
        self.count -= 1;
    }

    /// Takes out what lies before `floor`.
    pub(super) fn remove_below(&mut self, floor: QueueOffset) {
        while let Some((first, end)) = self.ranges.first_key_value().map(|(first, end)| (*first, *end))
            && first < floor.0
        {
            self.ranges.remove(&first);
            self.count -= end.min(floor.0) - first;
            if end > floor.0 {
                self.ranges.insert(floor.0, end);
            }
        }
    }

    pub(super) fn first(&self) -> Option<QueueOffset> {
        self.ranges.first_key_value().map(|(first, _)| QueueOffset(*first))
    }

    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = QueueOffset> {
        self.ranges.iter().flat_map(|(first, end)| (*first..*end).map(QueueOffset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in vec((0..40u64, 0..6u8), 0..80)) {
            let (mut offsets, mut model) = (Offsets::default(), BTreeSet::new());
            for (offset, step) in steps {
                match step {
                    0..3 => {
                        offsets.insert(QueueOffset(offset));
                        model.insert(offset);
                    }
                    3..5 => {
                        offsets.remove(QueueOffset(offset));
                        model.remove(&offset);
                    }
                    _ => {
                        let floor = offset / 4;
                        offsets.remove_below(QueueOffset(floor));
                        model.retain(|offset| *offset >= floor);
                    }
                }
                prop_assert_eq!(offsets.iter().map(|offset| offset.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(offsets.len(), model.len() as u64);
                prop_assert_eq!(offsets.first().map(|first| first.0), model.first().copied());
                prop_assert!((0..41).all(|offset| offsets.contains(QueueOffset(offset)) == model.contains(&offset)));
            }
            prop_assert!(offsets.ranges.len() <= offsets.len() as usize);
        }
    }

    #[test]
    fn neighbours_are_one_range() {
        let mut offsets = Offsets::default();
        for offset in [5, 3, 4, 9, 7, 8, 6] {
            offsets.insert(QueueOffset(offset));
        }
        assert_eq!((offsets.ranges.len(), offsets.len()), (1, 7));
    }
}
