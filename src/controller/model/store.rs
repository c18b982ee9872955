//! What the model's API server keeps: Secrets field by field, with the managers of each field, and ManagedSecrets.
//!
//! In: applies, and edits of users. Out: the stored state, and the same as the API server would put it on the wire.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::{
    ManagedSecret, ManagedSecretSpec, Reason,
    keys::{GROUP, KIND, VERSION},
};
use serde_json::{Map, Value, json};

/// Namespace of everything in the model.
pub(super) const NAMESPACE: &str = "shop";
/// The manager of everybody who is not the operator.
pub(super) const USER: &str = "user";

/// A field of a Secret that has managers of its own.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Field {
    Label(String),
    Annotation(String),
    Data(String),
    /// An owner reference, by its uid.
    Owner(String),
    Type,
    Immutable,
}

/// A field's value and who manages it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) value: Value,
    pub(super) managers: BTreeSet<&'static str>,
}

/// Who made a Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Maker {
    /// Anybody else.
    User,
    /// The operator, for the ManagedSecret of this name.
    Operator(String),
}

/// A Secret.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) revision: u64,
    pub(super) fields: BTreeMap<Field, Cell>,
    pub(super) finalizer: bool,
    pub(super) deleting: bool,
    /// Not known to any API server: for the invariants.
    pub(super) maker: Maker,
    /// Names of ManagedSecrets that have rightly adopted it; likewise.
    pub(super) adopters: BTreeSet<String>,
}

/// A ManagedSecret.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) revision: u64,
    pub(super) generation: i64,
    pub(super) spec: ManagedSecretSpec,
    pub(super) status: Option<Value>,
    pub(super) finalizer: bool,
    pub(super) deleting: bool,
    /// Some generation of its spec has allowed adoption.
    pub(super) adopted_once: bool,
    /// Some generation of its spec has had a schedule of rotations.
    pub(super) scheduled_once: bool,
}

/// Why an apply is refused: the field that is invalid.
pub(super) struct Invalid(pub(super) &'static str);

const DELETED_AT: &str = "2026-11-23T08:00:00Z";

impl Stored {
    pub(super) fn new(name: &str, uid: String, maker: Maker) -> Self {
        Self {
            name: name.to_owned(),
            uid,
            revision: 0,
            fields: BTreeMap::new(),
            finalizer: false,
            deleting: false,
            maker,
            adopters: BTreeSet::new(),
        }
    }

    fn text(&self, field: &Field) -> Option<&str> {
        self.fields.get(field)?.value.as_str()
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.text(&Field::Label(key.to_owned()))
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.text(&Field::Annotation(key.to_owned()))
    }

    /// Base64, as stored.
    pub(super) fn data(&self, key: &str) -> Option<&str> {
        self.text(&Field::Data(key.to_owned()))
    }

    pub(super) fn type_(&self) -> &str {
        self.text(&Field::Type).unwrap_or("Opaque")
    }

    pub(super) fn owner_uids(&self) -> Vec<&String> {
        self.fields.keys().filter_map(|field| if let Field::Owner(uid) = field { Some(uid) } else { None }).collect()
    }

    /// Forced server-side apply by a manager of the operator's: its fields are these and no others, and what others
    /// manage stays.
    pub(super) fn apply(&mut self, manager: &'static str, wanted: BTreeMap<Field, Value>) -> Result<(), Invalid> {
        let before = self.clone();
        self.fields.retain(|field, cell| {
            if !wanted.contains_key(field) {
                cell.managers.remove(manager);
            }
            !cell.managers.is_empty()
        });
        for (field, value) in wanted {
            let cell =
                self.fields.entry(field).or_insert_with(|| Cell { value: Value::Null, managers: BTreeSet::new() });
            if cell.value != value {
                cell.value = value;
                cell.managers.clear();
            }
            cell.managers.insert(manager);
        }
        self.check(&before)
    }

    /// An update by a user: a field whose value changes is the user's from then on. `None` removes it.
    pub(super) fn edit(&mut self, field: Field, value: Option<Value>) {
        match value {
            None => {
                self.fields.remove(&field);
            }
            Some(value) if self.fields.get(&field).is_some_and(|cell| cell.value == value) => {}
            Some(value) => {
                self.fields.insert(field, Cell { value, managers: BTreeSet::from([USER]) });
            }
        }
    }

    /// What the API server holds fast about Secrets.
    fn check(&self, before: &Self) -> Result<(), Invalid> {
        let data = |of: &Self| {
            let fields = of.fields.iter().filter(|(field, _)| matches!(field, Field::Data(_)));
            fields.map(|(field, cell)| (field.clone(), cell.value.clone())).collect::<Vec<_>>()
        };
        if before.revision > 0 && self.type_() != before.type_() {
            return Err(Invalid("type"));
        }
        if before.fields.contains_key(&Field::Immutable) && data(self) != data(before) {
            return Err(Invalid("data"));
        }
        Ok(())
    }

    /// Metadata as on the wire.
    pub(super) fn metadata(&self) -> Value {
        let (mut labels, mut annotations, mut owners) = (Map::new(), Map::new(), Vec::new());
        let mut managed: BTreeMap<&str, Value> = BTreeMap::new();
        for (field, cell) in &self.fields {
            let path = match field {
                Field::Label(key) => {
                    labels.insert(key.clone(), cell.value.clone());
                    ["f:metadata".to_owned(), "f:labels".to_owned(), format!("f:{key}")].to_vec()
                }
                Field::Annotation(key) => {
                    annotations.insert(key.clone(), cell.value.clone());
                    ["f:metadata".to_owned(), "f:annotations".to_owned(), format!("f:{key}")].to_vec()
                }
                Field::Owner(uid) => {
                    owners.push(cell.value.clone());
                    let key = format!("k:{}", json!({ "uid": uid }));
                    ["f:metadata".to_owned(), "f:ownerReferences".to_owned(), key].to_vec()
                }
                Field::Data(key) => vec!["f:data".to_owned(), format!("f:{key}")],
                Field::Type => vec!["f:type".to_owned()],
                Field::Immutable => vec!["f:immutable".to_owned()],
            };
            for manager in &cell.managers {
                let mut at = managed.entry(manager).or_insert_with(|| json!({}));
                for step in &path {
                    at = &mut at[step.as_str()];
                }
                *at = json!({});
            }
        }
        let managed: Vec<Value> = managed
            .into_iter()
            .map(|(manager, fields)| {
                let operation = if manager == USER { "Update" } else { "Apply" };
                json!({ "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields })
            })
            .collect();
        json!({
            "name": self.name,
            "namespace": NAMESPACE,
            "uid": self.uid,
            "resourceVersion": self.revision.to_string(),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": owners,
            "managedFields": managed,
            "deletionTimestamp": self.deleting.then_some(DELETED_AT),
        })
    }

    /// The Secret as on the wire.
    pub(super) fn wire(&self) -> Value {
        let data: Map<String, Value> = self
            .fields
            .iter()
            .filter_map(
                |(field, cell)| {
                    if let Field::Data(key) = field { Some((key.clone(), cell.value.clone())) } else { None }
                },
            )
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self.metadata(),
            "type": self.type_(),
            "immutable": self.fields.contains_key(&Field::Immutable).then_some(true),
            "data": data,
        })
    }
}

/// The fields of an apply's body.
pub(super) fn fields_of(body: &Value) -> BTreeMap<Field, Value> {
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let meta = &body["metadata"];
    let mut fields = BTreeMap::new();
    fields.extend(map(&meta["labels"]).into_iter().map(|(key, value)| (Field::Label(key), value)));
    fields.extend(map(&meta["annotations"]).into_iter().map(|(key, value)| (Field::Annotation(key), value)));
    fields.extend(map(&body["data"]).into_iter().map(|(key, value)| (Field::Data(key), value)));
    for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
        fields.insert(Field::Owner(owner["uid"].as_str().unwrap().to_owned()), owner.clone());
    }
    if !body["type"].is_null() {
        fields.insert(Field::Type, body["type"].clone());
    }
    fields
}

impl Object {
    /// The ManagedSecret as on the wire; a status that was never written shows the CRD's default.
    pub(super) fn wire(&self) -> Value {
        let unseen = json!({ "conditions": [{
            "type": "Ready", "status": "Unknown", "reason": Reason::Pending.as_str(),
            "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]});
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "uid": self.uid,
                "resourceVersion": self.revision.to_string(),
                "generation": self.generation,
                "deletionTimestamp": self.deleting.then_some(DELETED_AT),
            },
            "spec": self.spec,
            "status": self.status.clone().unwrap_or(unseen),
        })
    }

    pub(super) fn typed(&self) -> ManagedSecret {
        serde_json::from_value(self.wire()).unwrap()
    }

    /// A text of its status.
    pub(super) fn status_text(&self, pointer: &str) -> Option<&str> {
        self.status.as_ref()?.pointer(pointer)?.as_str()
    }

    /// Status and reason of `Ready`.
    pub(super) fn ready(&self) -> (String, String) {
        self.condition("Ready").unwrap_or_default()
    }

    /// Status and reason of a condition, if it is there.
    pub(super) fn condition(&self, type_: &str) -> Option<(String, String)> {
        let wire = self.wire();
        let conditions = wire.pointer("/status/conditions")?.as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == type_)?;
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason")))
    }
}
