//! Which ManagedSecret may take over a record that an earlier one of its name left behind, or that a restore wrote.

use std::fmt;

use super::{Delivered, RecordMeta};
use crate::types::{Delivery, ManagedSecretSpec};

/// What keeps a ManagedSecret from taking a record over. Displays as the field that differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Misfit {
    /// The record is that of another ManagedSecret.
    Owner,
    /// The record holds another name.
    Name,
    /// The record delivers to another location.
    Target,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "metadata.name",
            Self::Name => "spec.name",
            Self::Target => "its target",
        })
    }
}

impl Delivered {
    /// Where the ManagedSecret called `object` wants its value delivered, if the operator creates the Secret.
    #[must_use]
    pub fn wanted(object: &str, spec: &ManagedSecretSpec) -> Self {
        match spec.delivery() {
            Delivery::None => Self::None,
            Delivery::Secret => {
                Self::Own { name: spec.target_name(object).to_owned(), key: spec.target_key().to_owned() }
            }
        }
    }
}

impl RecordMeta {
    /// Whether the ManagedSecret called `object`, in the record's namespace and with no id yet, may take over this record,
    /// which no living object owns. `metadata.name`, `spec.name` and the location of the target must be the same: so a take-over
    /// delivers the value to no other location than before.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn fits(&self, object: &str, spec: &ManagedSecretSpec) -> Result<(), Misfit> {
        if self.owner != object {
            Err(Misfit::Owner)
        } else if self.name != spec.name {
            Err(Misfit::Name)
        } else if self.target.same_place(&Delivered::wanted(object, spec)) {
            Ok(())
        } else {
            Err(Misfit::Target)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::meta;
    use super::*;
    use crate::types::Target;

    #[test]
    fn a_record_is_taken_over_by_object_name_spec_name_and_location() {
        let own = |name: &str, key: &str| Delivered::Own { name: name.into(), key: key.into() };
        let adopted = |name: &str| Delivered::Adopted { uid: "u".into(), name: name.into(), key: "value".into() };
        let spec = || ManagedSecretSpec { name: "DB_PASSWORD".into(), ..ManagedSecretSpec::default() };
        let undelivered = || ManagedSecretSpec { delivery: Some(Delivery::None), ..spec() };
        let moved = |name: &str| ManagedSecretSpec {
            target: Some(Target { name: Some(name.into()), ..Target::default() }),
            ..spec()
        };
        for (case, object, spec, target, expected) in [
            ("the same", "db", spec(), own("db", "value"), Ok(())),
            ("the same, adopted", "db", spec(), adopted("db"), Ok(())),
            ("the same, not delivered", "db", undelivered(), Delivered::None, Ok(())),
            ("the same, named", "db", moved("app"), own("app", "value"), Ok(())),
            ("another object", "other", spec(), own("db", "value"), Err(Misfit::Owner)),
            (
                "another name",
                "db",
                ManagedSecretSpec { name: "X".into(), ..spec() },
                own("db", "value"),
                Err(Misfit::Name),
            ),
            ("another key", "db", spec(), own("db", "key"), Err(Misfit::Target)),
            ("another Secret", "db", moved("app"), own("db", "value"), Err(Misfit::Target)),
            ("another Secret, adopted", "db", spec(), adopted("app"), Err(Misfit::Target)),
            ("no longer delivered", "db", undelivered(), own("db", "value"), Err(Misfit::Target)),
            ("now delivered", "db", spec(), Delivered::None, Err(Misfit::Target)),
        ] {
            assert_eq!(RecordMeta { target, ..meta() }.fits(object, &spec), expected, "{case}");
        }
    }
}
