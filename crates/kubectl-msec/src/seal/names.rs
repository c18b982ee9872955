//! The names of converted Secrets: the user can give them, and no name is used twice.

use std::collections::HashMap;
use std::path::Path;

use managed_secrets_cli::{CliError, text};
use serde_json::Value;

/// The file that `--names` names: a line for each value that needs another name than the derived one.
///
/// ```text
/// # SECRET/KEY or NAMESPACE/SECRET/KEY    NAME         OBJECT
/// shop/db/password                        DB_ROOT      db-root
/// ```
#[derive(Default)]
pub(super) struct Names {
    file: String,
    lines: Vec<Line>,
}

struct Line {
    number: usize,
    path: String,
    given: Given,
    is_used: bool,
}

/// The names of one value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Given {
    /// `spec.name`.
    pub(super) secret: String,
    /// `metadata.name`; derived if it is missing.
    pub(super) object: Option<String>,
}

impl Names {
    pub(super) fn read(file: &Path) -> Result<Self, CliError> {
        let called = format!("--names {}", file.display());
        Self::parse(&called, &text::read(&called, file)?)
    }

    fn parse(file: &str, text: &str) -> Result<Self, CliError> {
        let mut lines: Vec<Line> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            // A name may contain `#`.
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let (path, secret, object) = match words[..] {
                [path, secret] => (path, secret, None),
                [path, secret, object] => (path, secret, Some(object)),
                _ => return Err(CliError::Usage(format!("{file}:{number}: must be SECRET/KEY NAME [OBJECT]"))),
            };
            if !matches!(path.split('/').count(), 2 | 3) {
                let rule = "must begin with SECRET/KEY or NAMESPACE/SECRET/KEY";
                return Err(CliError::Usage(format!("{file}:{number}: {rule}")));
            }
            if let Some(other) = lines.iter().find(|line| line.path == path) {
                let other = other.number;
                return Err(CliError::Usage(format!("{file}:{number}: the same SECRET/KEY is named in line {other}")));
            }
            let given = Given { secret: secret.to_owned(), object: object.map(str::to_owned) };
            lines.push(Line { number, path: path.to_owned(), given, is_used: false });
        }
        Ok(Self { file: file.to_owned(), lines })
    }

    /// The names of the value under a key of a Secret; a line with the namespace goes before one without.
    pub(super) fn of(&mut self, namespace: Option<&str>, secret: &str, key: &str) -> Option<Given> {
        let anywhere = format!("{secret}/{key}");
        let here = namespace.map(|namespace| format!("{namespace}/{anywhere}"));
        let at = |path: &str| self.lines.iter().position(|line| line.path == path);
        let at = here.as_deref().and_then(at).or_else(|| at(&anywhere))?;
        let line = self.lines.get_mut(at)?;
        line.is_used = true;
        Some(line.given.clone())
    }

    /// Refuses a line that no value was found for: it may be misspelt.
    pub(super) fn all_used(&self) -> Result<(), CliError> {
        self.lines.iter().find(|line| !line.is_used).map_or(Ok(()), |line| {
            Err(CliError::Usage(format!("{}:{}: no Secret of the input has this key", self.file, line.number)))
        })
    }
}

/// What each name of the output stands for: object, `spec.name` and target of every ManagedSecret.
#[derive(Default)]
pub(super) struct Taken(HashMap<(&'static str, String), Vec<Claim>>);

/// One use of a name.
struct Claim {
    /// None: that of the user who applies the object, which can be any.
    namespace: Option<String>,
    by: String,
}

impl Taken {
    /// Notes the names of `object`, which was made of `by`. If one of them is taken: what is wrong.
    pub(super) fn claim(&mut self, object: &Value, namespace: Option<&str>, by: &str) -> Option<String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").or(namespace);
        let name = text("/metadata/name")?;
        let is_delivered = text("/spec/delivery") != Some("None");
        let target = text("/spec/target/name").unwrap_or(name);
        let names = [
            ("the ManagedSecret", Some(name)),
            ("the name", text("/spec/name")),
            ("the Secret", Some(target).filter(|_| is_delivered)),
        ];
        let mut clash = None;
        for (what, name) in names {
            let Some(name) = name else { continue };
            let claims = self.0.entry((what, name.to_owned())).or_default();
            let is_same = |claim: &&Claim| match (claim.namespace.as_deref(), namespace) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            };
            if let (Some(other), None) = (claims.iter().find(is_same), &clash) {
                let way_out = if other.namespace.as_deref() == namespace {
                    "; give"
                } else {
                    ", and one of them has no namespace, so it can be applied in any: write its namespace, or give"
                };
                clash = Some(format!(
                    "{} and {by} both give {what} {name}{way_out} one of them another name with --names",
                    other.by
                ));
            }
            claims.push(Claim { namespace: namespace.map(str::to_owned), by: by.to_owned() });
        }
        clash
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_name_values_and_a_namespace_counts_more() {
        let text = "# names\n\ndb/password  DB_ROOT\r\n shop/db/password\tDB#1 db-one\n";
        let mut names = Names::parse("names", text).unwrap();
        let given = |secret: &str, object: Option<&str>| {
            Some(Given { secret: secret.to_owned(), object: object.map(str::to_owned) })
        };
        assert_eq!(names.of(Some("shop"), "db", "password"), given("DB#1", Some("db-one")));
        assert_eq!(names.all_used().unwrap_err().to_string(), "names:3: no Secret of the input has this key");
        assert_eq!(names.of(Some("test"), "db", "password"), given("DB_ROOT", None));
        assert_eq!(names.of(None, "db", "user"), None);
        assert!(names.all_used().is_ok());
    }

    #[test]
    fn invalid_lines_are_refused_with_their_number() {
        for (text, says) in [
            ("db/password", "n:1: must be SECRET/KEY NAME"),
            ("\ndb/password A b c", "n:2: must be SECRET/KEY NAME"),
            ("db A", "n:1: must begin with SECRET/KEY"),
            ("a/b/c/d A", "n:1: must begin with SECRET/KEY"),
            ("db/a A\ndb/a B", "n:2: the same SECRET/KEY is named in line 1"),
        ] {
            let error = Names::parse("n", text).err().unwrap().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn each_kind_of_name_is_given_once_in_a_namespace() {
        let object = |namespace: &str, name: &str, secret: &str, target: &str| json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"name": secret, "target": {"name": target}}});
        let mut taken = Taken::default();
        assert_eq!(taken.claim(&object("shop", "a", "A", "ta"), None, "one"), None);
        assert_eq!(taken.claim(&object("test", "a", "A", "ta"), None, "elsewhere"), None);
        for (other, what) in [
            (object("shop", "a", "B", "tb"), "the ManagedSecret a"),
            (object("shop", "c", "A", "tc"), "the name A"),
            (object("shop", "d", "D", "ta"), "the Secret ta"),
        ] {
            let clash = taken.claim(&other, None, "two").unwrap();
            assert!(clash.starts_with(&format!("one and two both give {what};")), "{clash}");
        }
        let kept =
            json!({"metadata": {"name": "e"}, "spec": {"name": "E", "delivery": "None", "target": {"name": "ta"}}});
        assert_eq!(taken.claim(&kept, Some("shop"), "three"), None);
        // Without a namespace, an object can be applied in each.
        let anywhere = json!({"metadata": {"name": "z"}, "spec": {"name": "A", "target": {"name": "tz"}}});
        let clash = taken.claim(&anywhere, None, "four").unwrap();
        assert_eq!(
            clash,
            "one and four both give the name A, and one of them has no namespace, so it can be applied in any: write its \
             namespace, or give one of them another name with --names"
        );
        let clash = taken.claim(&object("other", "z", "Z", "t"), None, "five").unwrap();
        assert!(clash.starts_with("four and five both give the ManagedSecret z, and one"), "{clash}");
    }
}
