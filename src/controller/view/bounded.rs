//! Parts of a Secret whose number others choose, decoded within bounds: labels, annotations, owner references and data.
//!
//! As a tree in memory, 150,000 labels of three letters take ten times their text. So the text is gathered in one piece,
//! and entries are made of those only that are looked at: the operator's own, those that the operator owns, and a bounded
//! number of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use managed_secrets_client::SecretBytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use zeroize::Zeroizing;

use super::{OWNERS_KEPT_MAX, OwnerRef, SECRET_NAME_MAX, UID_MAX, clip, decode::Owner};

/// Labels, and annotations, that a view holds besides the operator's own and those that the operator owns. Kubernetes
/// bounds the text of each label, and of all annotations together.
pub const OTHERS_MAX: usize = 256;

/// Whether a view lacks labels or annotations that the object has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LeftOut {
    /// It has more labels.
    pub labels: bool,
    /// It has more annotations.
    pub annotations: bool,
}

/// All entries of a map of texts, in one piece.
#[derive(Default)]
pub(super) struct Texts {
    text: String,
    /// Where in `text` the key and the value of each entry end. Each begins where the one before ends.
    ends: Vec<(usize, usize)>,
}

impl Texts {
    fn push(&mut self, key: &str, value: &str) {
        self.text.push_str(key);
        let end = self.text.len();
        self.text.push_str(value);
        self.ends.push((end, self.text.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut begin = 0;
        self.ends.iter().map(move |(key_end, end)| {
            let entry = (&self.text[begin..*key_end], &self.text[*key_end..*end]);
            begin = *end;
            entry
        })
    }

    /// The entries whose keys are `fixed` or `owned`, and [`OTHERS_MAX`] others; and whether others were left out.
    pub(super) fn bounded(&self, fixed: &[&str], owned: &BTreeSet<String>) -> (BTreeMap<String, String>, bool) {
        let (mut kept, mut others, mut left_out) = (BTreeMap::new(), 0, false);
        for (key, value) in self.iter() {
            if !fixed.contains(&key) && !owned.contains(key) {
                if others == OTHERS_MAX {
                    left_out = true;
                    continue;
                }
                others += 1;
            }
            kept.insert(key.to_owned(), value.to_owned());
        }
        (kept, left_out)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_unit<E>(self) -> Result<Texts, E> {
                Ok(Texts::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Texts::default();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    texts.push(&key, &value);
                }
                Ok(texts)
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// Owner references: those to ManagedSecrets and controllers, and others where there is room.
#[derive(Default)]
pub(super) struct Owners(pub(super) Vec<OwnerRef>);

impl<'de> Deserialize<'de> for Owners {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct References;
        impl<'de> Visitor<'de> for References {
            type Value = Owners;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of owner references")
            }

            fn visit_unit<E>(self) -> Result<Owners, E> {
                Ok(Owners::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut references: A) -> Result<Owners, A::Error> {
                let mut owners = Vec::new();
                while let Some(owner) = references.next_element::<Owner>()? {
                    owners.push(OwnerRef::from(owner));
                    if owners.len() > 2 * OWNERS_KEPT_MAX {
                        bound_owners(&mut owners);
                    }
                }
                bound_owners(&mut owners);
                Ok(Owners(owners))
            }
        }
        deserializer.deserialize_any(References)
    }
}

/// Keeps [`OWNERS_KEPT_MAX`] owner references, those first that decide something.
fn bound_owners(owners: &mut Vec<OwnerRef>) {
    owners.sort_by_key(|owner| !(owner.is_managed_secret || owner.controller));
    owners.truncate(OWNERS_KEPT_MAX);
    for owner in owners {
        clip(&mut owner.name, SECRET_NAME_MAX);
        clip(&mut owner.uid, UID_MAX);
    }
}

/// Reads, of a Secret, the data under the keys that are wanted, and nothing else.
pub(super) struct Data<W>(pub(super) W);

type Values = BTreeMap<String, Zeroizing<Vec<u8>>>;

impl<'de, W: Fn(&str) -> bool> DeserializeSeed<'de> for Data<W> {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Values, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W: Fn(&str) -> bool> Visitor<'de> for Data<W> {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Secret")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let mut values = Values::new();
        while let Some(field) = map.next_key::<String>()? {
            if field == "data" {
                values = map.next_value_seed(Entries(&self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(values)
    }
}

struct Entries<'w, W>(&'w W);

impl<'de, W: Fn(&str) -> bool> DeserializeSeed<'de> for Entries<'_, W> {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Values, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, W: Fn(&str) -> bool> Visitor<'de> for Entries<'_, W> {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a Secret")
    }

    fn visit_unit<E>(self) -> Result<Values, E> {
        Ok(Values::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let mut values = Values::new();
        while let Some(key) = map.next_key::<String>()? {
            if (self.0)(&key) {
                values.insert(key, map.next_value::<SecretBytes>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(values)
    }
}
