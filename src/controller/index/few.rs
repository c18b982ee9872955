//! A set that nearly always has one or two items.
//!
//! A `BTreeSet` takes room for eleven as soon as it has one, which is some three hundred bytes of memory for a name; and
//! the cache has ten such sets for each object.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

use smallvec::SmallVec;

/// Items that are kept in a row, in order. Where there are more, a tree keeps each step fast.
const ROW_MAX: usize = 8;

/// An ordered set.
#[derive(Clone, Debug)]
pub(super) enum Few<T> {
    Row(SmallVec<[T; 1]>),
    Tree(BTreeSet<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Row(SmallVec::new())
    }
}

impl<T: Ord> Few<T> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Row(row) => row.is_empty(),
            Self::Tree(tree) => tree.is_empty(),
        }
    }

    pub(super) fn contains(&self, item: &T) -> bool {
        match self {
            Self::Row(row) => row.binary_search(item).is_ok(),
            Self::Tree(tree) => tree.contains(item),
        }
    }

    pub(super) fn insert(&mut self, item: T) {
        match self {
            Self::Row(row) => {
                let Err(place) = row.binary_search(&item) else { return };
                if row.len() < ROW_MAX {
                    // Exactly as much as is needed: it will hardly grow further.
                    row.reserve_exact(1);
                    row.insert(place, item);
                    return;
                }
                *self = Self::Tree(std::mem::take(row).into_iter().chain([item]).collect());
            }
            Self::Tree(tree) => {
                tree.insert(item);
            }
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, item: &Q)
    where
        T: std::borrow::Borrow<Q>,
    {
        match self {
            Self::Row(row) => {
                if let Ok(place) = row.binary_search_by(|other| other.borrow().cmp(item)) {
                    row.remove(place);
                }
            }
            Self::Tree(tree) => {
                tree.remove(item);
                if tree.len() <= ROW_MAX / 2 {
                    *self = Self::Row(std::mem::take(tree).into_iter().collect());
                }
            }
        }
    }

    /// The items, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let (row, tree) = match self {
            Self::Row(row) => (&row[..], None),
            Self::Tree(tree) => (&[][..], Some(tree)),
        };
        row.iter().chain(tree.into_iter().flatten())
    }

    /// Those that come after `item`, in order.
    pub(super) fn after<'s>(&'s self, item: &'s T) -> impl Iterator<Item = &'s T> {
        let (row, tree) = match self {
            Self::Row(row) => (&row[row.partition_point(|other| other <= item)..], None),
            Self::Tree(tree) => (&[][..], Some(tree)),
        };
        row.iter().chain(tree.into_iter().flat_map(move |tree| tree.range((Excluded(item), Unbounded))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        // No file remembers a failure: one that matters becomes a test of its own.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_same_set_as_a_tree(steps in vec((any::<bool>(), 0..24u32), 0..80), after in 0..24u32) {
            let (mut few, mut tree) = (Few::default(), BTreeSet::new());
            for (inserts, item) in steps {
                if inserts {
                    few.insert(item);
                    tree.insert(item);
                } else {
                    few.remove(&item);
                    tree.remove(&item);
                }
                prop_assert!(few.iter().eq(&tree));
                prop_assert_eq!(few.is_empty(), tree.is_empty());
                prop_assert_eq!(few.contains(&item), tree.contains(&item));
                prop_assert!(few.after(&after).eq(tree.range((Excluded(after), Unbounded))));
            }
        }
    }
}
