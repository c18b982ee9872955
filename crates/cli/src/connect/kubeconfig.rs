//! Kubeconfig files as kubectl reads them.
//!
//! ```text
//! --kubeconfig FILE | KUBECONFIG=FILE:FILE | ~/.kube/config ─▶ read each file once ─▶ merge ─▶ Kubeconfig
//! ```
//!
//! The rules are client-go's (`tools/clientcmd/loader.go`, `merge.go` and `api/v1`): a file that `--kubeconfig` names
//! must exist; missing and empty entries of the list are skipped; the first file that has an entry wins, and the first
//! `current-context` that is not empty; an empty field is an absent one; paths are relative to their file. kube reads
//! kubeconfigs, too, but treats a missing entry of the list as an error and an empty value as a value.
//!
//! No error repeats a file's content: it holds credentials.

use std::{
    collections::{BTreeMap, HashSet},
    env, fmt, fs, io,
    path::{Component, Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The list of kubeconfig files.
const VARIABLE: &str = "KUBECONFIG";

/// Why no kubeconfig could be read.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file cannot be read; one that `--kubeconfig` names must exist.
    #[error("cannot read the kubeconfig {}: {error}; name another file with --kubeconfig or KUBECONFIG", .file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is not a kubeconfig.
    #[error("the kubeconfig {} is invalid: {problem}; correct the file or name another with --kubeconfig", .file.display())]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// What is wrong, and where; nothing of the content.
        problem: String,
    },
    /// `KUBECONFIG` is set, and none of its files exists.
    #[error("no file that KUBECONFIG names exists: {0}; correct KUBECONFIG or unset it")]
    NoneExists(String),
}

/// Where kubeconfigs are looked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// The file that `--kubeconfig` names.
    Flag(PathBuf),
    /// The entries of `KUBECONFIG`.
    Variable(Vec<PathBuf>),
    /// `~/.kube/config`.
    Home(PathBuf),
}

impl Location {
    /// The flag's file, else that of the environment, else that of the home folder. Empty values are absent ones.
    #[must_use]
    pub fn of(flag: Option<&Path>) -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        if let Some(file) = flag.filter(|file| !file.as_os_str().is_empty()) {
            return Self::Flag(file.to_owned());
        }
        match set(VARIABLE) {
            Some(list) => Self::Variable(env::split_paths(&list).collect()),
            None => Self::Home(PathBuf::from(set("HOME").unwrap_or_default()).join(".kube/config")),
        }
    }

    /// Reads the files; `None` if nothing was asked for and `~/.kube/config` does not exist.
    pub fn read(&self) -> Result<Option<Kubeconfig>, KubeconfigError> {
        match self {
            Self::Flag(file) => File::read(file).map(|file| Some(Kubeconfig::merge(vec![file]))),
            Self::Home(file) => Ok(File::read_if_there(file)?.map(|file| Kubeconfig::merge(vec![file]))),
            Self::Variable(entries) => {
                let mut seen = HashSet::new();
                let named: Vec<_> =
                    entries.iter().filter(|entry| !entry.as_os_str().is_empty() && seen.insert(*entry)).collect();
                let read: Result<Vec<_>, _> =
                    named.iter().filter_map(|file| File::read_if_there(file).transpose()).collect();
                let read = read?;
                if read.is_empty() {
                    let called: Vec<_> = named.iter().map(|file| file.display().to_string()).collect();
                    let called = if called.is_empty() { "it is empty".to_owned() } else { called.join(", ") };
                    return Err(KubeconfigError::NoneExists(called));
                }
                Ok(Some(Kubeconfig::merge(read)))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(file) | Self::Home(file) => write!(f, "{}", file.display()),
            Self::Variable(_) => f.write_str(VARIABLE),
        }
    }
}

/// One or more files, merged.
#[derive(Clone, Debug, Default)]
pub struct Kubeconfig {
    /// The files that were read, for messages.
    pub(super) files: Vec<PathBuf>,
    /// The clusters by name.
    pub(super) clusters: BTreeMap<String, Cluster>,
    /// The users by name.
    pub(super) users: BTreeMap<String, User>,
    /// The contexts by name.
    pub(super) contexts: BTreeMap<String, Context>,
    /// The context to use if no flag names one; may be empty.
    pub(super) current_context: String,
}

impl Kubeconfig {
    /// The first file that has an entry wins.
    fn merge(files: Vec<File>) -> Self {
        let mut merged = Self::default();
        for file in files {
            merged.files.push(file.path);
            take_new(&mut merged.clusters, file.clusters);
            take_new(&mut merged.users, file.users);
            take_new(&mut merged.contexts, file.contexts);
            if merged.current_context.is_empty() {
                merged.current_context = file.current_context;
            }
        }
        merged
    }

    /// The names of the contexts.
    #[must_use]
    pub fn contexts(&self) -> Vec<String> {
        self.contexts.keys().cloned().collect()
    }

    /// The names of the clusters.
    #[must_use]
    pub fn clusters(&self) -> Vec<String> {
        self.clusters.keys().cloned().collect()
    }

    /// The names of the users.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The files as a message names them.
    pub(super) fn called(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    }
}

fn take_new<T>(entries: &mut BTreeMap<String, T>, more: BTreeMap<String, T>) {
    for (name, entry) in more {
        entries.entry(name).or_insert(entry);
    }
}

/// How to reach an API server. Empty is absent, as in client-go.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Cluster {
    #[serde(deserialize_with = "or_default")]
    pub(super) server: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) tls_server_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) insecure_skip_tls_verify: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) certificate_authority: String,
    #[serde(deserialize_with = "bytes")]
    pub(super) certificate_authority_data: Vec<u8>,
    #[serde(deserialize_with = "or_default")]
    pub(super) proxy_url: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) disable_compression: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) extensions: Vec<Extension>,
}

/// Data of other programs; a credential plugin is given one of them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Extension {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    pub(super) extension: Value,
}

/// Credentials, and the user to impersonate. Not `Debug`: it holds tokens and keys.
#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct User {
    #[serde(deserialize_with = "or_default")]
    pub(super) client_certificate: String,
    #[serde(deserialize_with = "bytes")]
    pub(super) client_certificate_data: Vec<u8>,
    #[serde(deserialize_with = "or_default")]
    pub(super) client_key: String,
    #[serde(deserialize_with = "bytes")]
    pub(super) client_key_data: Vec<u8>,
    #[serde(deserialize_with = "or_default")]
    pub(super) token: String,
    #[serde(rename = "tokenFile", deserialize_with = "or_default")]
    pub(super) token_file: String,
    #[serde(rename = "as", deserialize_with = "or_default")]
    pub(super) impersonate: String,
    #[serde(rename = "as-uid", deserialize_with = "or_default")]
    pub(super) impersonate_uid: String,
    #[serde(rename = "as-groups", deserialize_with = "or_default")]
    pub(super) impersonate_groups: Vec<String>,
    #[serde(rename = "as-user-extra", deserialize_with = "or_default")]
    pub(super) impersonate_extra: BTreeMap<String, Vec<String>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) username: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) password: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) auth_provider: Option<AuthProvider>,
    #[serde(deserialize_with = "or_default")]
    pub(super) exec: Option<Exec>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

/// The way of identity providers that client-go had before credential plugins.
#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct AuthProvider {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) config: BTreeMap<String, String>,
}

/// A program that prints credentials.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Exec {
    #[serde(deserialize_with = "or_default")]
    pub(super) command: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) env: Vec<ExecVariable>,
    #[serde(deserialize_with = "or_default")]
    pub(super) api_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) install_hint: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) provide_cluster_info: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) interactive_mode: String,
}

/// An environment variable of such a program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct ExecVariable {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) value: String,
}

/// Which cluster, user and namespace go together.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Context {
    #[serde(deserialize_with = "or_default")]
    pub(super) cluster: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) namespace: String,
}

/// One file.
#[derive(Debug)]
struct File {
    path: PathBuf,
    clusters: BTreeMap<String, Cluster>,
    users: BTreeMap<String, User>,
    contexts: BTreeMap<String, Context>,
    current_context: String,
}

impl File {
    fn read_if_there(path: &Path) -> Result<Option<Self>, KubeconfigError> {
        match Self::read(path) {
            Err(KubeconfigError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let failed = |error| KubeconfigError::Read { file: path.to_owned(), error };
        let bytes = fs::read(path).map_err(failed)?;
        let mut file = parse(&bytes).map_err(|problem| KubeconfigError::Invalid { file: path.to_owned(), problem })?;
        path.clone_into(&mut file.path);
        let folder = std::path::absolute(path).map_err(failed)?;
        file.resolve(folder.parent().unwrap_or(Path::new("/")));
        Ok(file)
    }

    /// Makes paths absolute. A plugin without a `/` in its name is looked up in `PATH`.
    fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut String| {
            if !path.is_empty() {
                *path = cleaned(&folder.join(&*path)).to_string_lossy().into_owned();
            }
        };
        for cluster in self.clusters.values_mut() {
            resolve(&mut cluster.certificate_authority);
        }
        for user in self.users.values_mut() {
            resolve(&mut user.client_certificate);
            resolve(&mut user.client_key);
            resolve(&mut user.token_file);
            if let Some(exec) = user.exec.as_mut().filter(|exec| exec.command.contains('/')) {
                resolve(&mut exec.command);
            }
        }
    }
}

/// Removes `.` and `..` from the text of an absolute path, as Go's `filepath.Join` does: a link in it is not followed
/// before its `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}

/// Reads the first YAML document, which is the one that kubectl reads; nothing is an empty kubeconfig.
fn parse(bytes: &[u8]) -> Result<File, String> {
    let text = decode(bytes)?;
    let mut document = match first_document(&text)? {
        Value::Null => serde_json::Map::new(),
        Value::Object(document) => document,
        _ => return Err("it is not a mapping".to_owned()),
    };
    let mut text_of = |key: &str| match document.remove(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{key} is not a string")),
    };
    let (kind, version) = (text_of("kind")?, text_of("apiVersion")?);
    if !matches!((kind.as_str(), version.as_str()), ("" | "Config", "" | "v1")) {
        return Err("its kind is not Config of apiVersion v1".to_owned());
    }
    let current_context = text_of("current-context")?;
    let mut list = |key: &str| document.remove(key).unwrap_or_default();
    Ok(File {
        path: PathBuf::new(),
        clusters: entries("clusters", "cluster", list("clusters"))?,
        users: entries("users", "user", list("users"))?,
        contexts: entries("contexts", "context", list("contexts"))?,
        current_context,
    })
}

/// The text of UTF-8 or, behind a byte-order mark, UTF-16.
fn decode(bytes: &[u8]) -> Result<String, String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<_> =
            bytes.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()])).collect();
        String::from_utf16(&units).map_err(|_| "it is not valid UTF-16".to_owned())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            std::str::from_utf8(rest).map(str::to_owned).map_err(|_| "it is not valid UTF-8".to_owned())
        }
    }
}

fn first_document(text: &str) -> Result<Value, String> {
    // Of keys that are given twice, kubectl takes the last. The file is the user's own: no budget.
    let options = serde_saphyr::options! {
        budget: None,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let mut reader = text.as_bytes();
    let first = serde_saphyr::read_with_options::<_, Value>(&mut reader, options).next();
    first.unwrap_or(Ok(Value::Null)).map_err(|error| match error.location() {
        Some(place) => format!("invalid YAML at line {}, column {}", place.line(), place.column()),
        None => "invalid YAML".to_owned(),
    })
}

/// `[{name: …, FIELD: {…}}, …]` by name. A name that is given twice is an error, as for kubectl.
fn entries<T: DeserializeOwned + Default>(
    list: &str,
    field: &str,
    value: Value,
) -> Result<BTreeMap<String, T>, String> {
    let items = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        _ => return Err(format!("{list} is not a list")),
    };
    let mut found = BTreeMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let wrong = || format!("entry {} of {list} is not a mapping with a name", index + 1);
        let mut item = match item {
            Value::Null => serde_json::Map::new(),
            Value::Object(item) => item,
            _ => return Err(wrong()),
        };
        let name = match item.remove("name") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(name)) => name,
            Some(_) => return Err(wrong()),
        };
        let content = match item.remove(field) {
            None | Some(Value::Null) => T::default(),
            // serde's message would quote the field's value.
            Some(content @ Value::Object(_)) => serde_json::from_value(content)
                .map_err(|_| format!("{field} {name:?} has a field whose value has the wrong type"))?,
            Some(_) => return Err(format!("{field} {name:?} is not a mapping")),
        };
        if found.insert(name.clone(), content).is_some() {
            return Err(format!("{list} has two entries with the name {name:?}"));
        }
    }
    Ok(found)
}

/// `null` is an absent value.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Base64 as Go reads it: line breaks are skipped.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: String = or_default(deserializer)?;
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(text).map_err(|_| serde::de::Error::custom("invalid base64"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_first_file_with_an_entry_wins_and_an_empty_current_context_does_not() {
        let merged = Kubeconfig::merge(vec![
            file("current-context: ''\nusers: [{name: a, user: {token: first}}]"),
            file("current-context: two\nusers: [{name: a, user: {username: u}}, {name: b}]\ncontexts: [{name: two}]"),
            file("current-context: three"),
        ]);
        assert_eq!(merged.current_context, "two");
        assert_eq!(merged.users["a"], User { token: "first".to_owned(), ..User::default() });
        assert_eq!(merged.users.len(), 2);
    }

    #[test]
    fn nulls_and_missing_fields_are_empty() {
        for text in ["", "# nothing", "---", "null", "{}", "clusters:\nusers: ~\ncontexts: []\ncurrent-context:"] {
            let file = file(text);
            assert!(file.clusters.is_empty() && file.users.is_empty() && file.current_context.is_empty(), "{text:?}");
        }
        let file =
            file("clusters: [{name: a, cluster: {server: , insecure-skip-tls-verify: null}}, {name: b, cluster: }]");
        assert_eq!(file.clusters["a"], Cluster::default());
        assert_eq!(file.clusters["b"], Cluster::default());
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_without_its_content() {
        for text in [
            "users: [{name: a, user: {token: [hunter2]}}]",
            "users: [{name: a, user: {token: 42424242}}]",
            "users: [{name: a, user: {client-key-data: hunter2!}}]",
            "users: [hunter2",
            "users: hunter2",
            "users: [hunter2]",
            "users: [{name: a, user: [hunter2]}]",
            "users: [{name: a}, {name: a, user: {token: hunter2}}]",
            "hunter2",
            "kind: hunter2",
            "apiVersion: v2",
            "current-context: 4242",
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(!problem.contains("hunter") && !problem.contains("4242"), "{text}: {problem}");
        }
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(file("---\ncurrent-context: a\n---\ncurrent-context: b\n").current_context, "a");
        assert_eq!(file("current-context: a\ncurrent-context: b\n").current_context, "b");
    }

    #[test]
    fn byte_order_marks_are_read() {
        let text = "current-context: ä";
        let wide: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        let marked = [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
        for bytes in [text.as_bytes(), &wide, &big, &marked] {
            assert_eq!(parse(bytes).unwrap().current_context, "ä");
        }
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn paths_are_relative_to_their_file() {
        let mut file = file(
            "clusters: [{name: a, cluster: {certificate-authority: ca}}]\n\
             users: [{name: a, user: {tokenFile: ../t, client-key: /k, exec: {command: bin/x}}}, \
             {name: b, user: {exec: {command: x}}}]",
        );
        file.resolve(Path::new("/home/me"));
        assert_eq!(file.clusters["a"].certificate_authority, "/home/me/ca");
        let user = &file.users["a"];
        assert_eq!((user.token_file.as_str(), user.client_key.as_str()), ("/home/t", "/k"));
        assert_eq!(user.exec.as_ref().unwrap().command, "/home/me/bin/x");
        assert_eq!(file.users["b"].exec.as_ref().unwrap().command, "x");
        assert_eq!(user.client_certificate, "");
    }
}
