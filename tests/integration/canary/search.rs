//! Canaries, and where they are looked for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, path::Path};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use kube::{Client, Config, client::Body};
use serde_json::{Value, json};
use testkit::ControlPlane;

/// One unique value, and where it may be found.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    /// The path that it went.
    pub(crate) path: String,
    /// The value.
    pub(crate) value: String,
    /// Secrets (`namespace/name`) in which it is at home.
    pub(crate) homes: Vec<String>,
    /// Whether it is at home no more in the end: an earlier value that is kept no longer.
    pub(crate) is_gone: bool,
    /// Whether it is no secret in files of this name: another program has written it there.
    pub(crate) spoiled: Option<&'static str>,
}

impl Canary {
    /// A value whose halves are both looked for, so that a part is found as well. What JSON escapes is between them: they
    /// look the same however often they are quoted.
    pub(crate) fn new(path: &str, homes: &[String]) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let (first, second) = unique.split_at(16);
        Self::of(path, format!("{first}\"\\ü\n{second}"), homes)
    }

    /// This value.
    pub(crate) fn of(path: &str, value: String, homes: &[String]) -> Self {
        Self { path: path.to_owned(), value, homes: homes.to_vec(), is_gone: false, spoiled: None }
    }

    fn halves(&self) -> [&str; 2] {
        let value = self.value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let end = value.char_indices().map(|(at, _)| at).filter(|at| *at <= value.len() - 16).max().unwrap();
        [&value[..16], &value[end..]]
    }
}

/// A text as it may look in a file.
fn forms(text: &str) -> BTreeSet<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut forms = BTreeSet::from([bytes.to_vec(), hex::encode(bytes).into(), hex::encode_upper(bytes).into()]);
    for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
        for before in 0..3 {
            let shifted = [vec![0; before], bytes.to_vec()].concat();
            // Whole sextets of the text alone.
            let (start, end) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
            forms.insert(engine.encode(&shifted)[start..end].into());
        }
    }
    forms
}

/// Looks for all canaries at once.
pub(crate) struct Finder {
    needles: Vec<(usize, Vec<u8>)>,
    /// Needles by their first two bytes.
    by_start: Vec<Vec<usize>>,
}

impl Finder {
    pub(crate) fn new(canaries: &[Canary]) -> Self {
        let needles: Vec<(usize, Vec<u8>)> = canaries
            .iter()
            .enumerate()
            .flat_map(|(canary, it)| it.halves().map(forms).into_iter().flatten().map(move |form| (canary, form)))
            .collect();
        let mut by_start = vec![Vec::new(); 1 << 16];
        for (index, (_, needle)) in needles.iter().enumerate() {
            by_start[usize::from(needle[0]) << 8 | usize::from(needle[1])].push(index);
        }
        Self { needles, by_start }
    }

    /// The canaries in these bytes, by their index.
    pub(crate) fn find(&self, bytes: &[u8]) -> BTreeSet<usize> {
        let starts = bytes.windows(2).enumerate().flat_map(|(at, pair)| {
            let start = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            self.by_start[start].iter().map(move |needle| (at, *needle))
        });
        starts
            .filter(|(at, needle)| bytes[*at..].starts_with(&self.needles[*needle].1))
            .map(|(_, needle)| self.needles[needle].0)
            .collect()
    }
}

/// Everything that etcd has ever stored: key, revision, value.
pub(crate) async fn history(control_plane: &ControlPlane) -> Vec<(String, i64, Vec<u8>)> {
    let url = control_plane.etcd_url().unwrap();
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let all = json!({"key": "AA==", "range_end": "AA=="});
    let ask =
        |path: &str, body: &Value| http::Request::post(path).body(Body::from(body.to_string().into_bytes())).unwrap();
    let count = json!({"key": "AA==", "range_end": "AA==", "count_only": true});
    let head = client.send(ask("/v3/kv/range", &count)).await.unwrap().into_body().collect().await.unwrap();
    let head: Value = serde_json::from_slice(&head.to_bytes()).unwrap();
    let last: i64 = number(&head["header"]["revision"]);

    let mut from_the_start = all;
    from_the_start["start_revision"] = json!(1);
    let answer = client.send(ask("/v3/watch", &json!({"create_request": from_the_start}))).await.unwrap();
    let bytes = answer.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut lines = bytes.into_async_read().lines();
    let mut history = Vec::new();
    let mut seen = 0;
    while seen < last {
        let line = lines.next().await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["result"]["canceled"].is_null(), "etcd was compacted before it was read: {line}");
        for event in line["result"]["events"].as_array().into_iter().flatten() {
            let decode = |field: &str| BASE64_STANDARD.decode(event["kv"][field].as_str().unwrap_or_default()).unwrap();
            seen = number(&event["kv"]["mod_revision"]);
            history.push((String::from_utf8(decode("key")).unwrap(), seen, decode("value")));
        }
    }
    history
}

/// protobuf's JSON writes 64-bit numbers as text.
fn number(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_form_of_a_canary_is_found() {
    let canaries = [Canary::new("one", &[]), Canary::new("two", &[])];
    let finder = Finder::new(&canaries);
    let value = &canaries[1].value;
    let quoted = json!({"quoted": json!({"twice": value}).to_string()}).to_string();
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{value}");
        for form in [
            text.clone(),
            quoted.clone(),
            hex::encode(&text),
            hex::encode_upper(&text),
            BASE64_STANDARD.encode(&text),
            BASE64_URL_SAFE.encode(&text),
            BASE64_STANDARD.encode(format!("{before}{quoted}")),
            BASE64_STANDARD.encode(&text[..before.len() + 17]),
        ] {
            assert_eq!(finder.find(form.as_bytes()), BTreeSet::from([1]), "{form}");
        }
    }
    assert!(finder.find(b"nothing of the kind").is_empty());
}
