//! Our reading and writing of YAML beside that of the real kubectl, over thousands of files: what we read is what kubectl
//! reads, or the file is refused; what we write, kubectl reads as it was meant.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use managed_secrets_crypto::mss1::{PublishedKey, Sealed, SealingKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::integration::{msec::Plugin, objects::Site};

/// Plain scalars, and texts in all styles, that readers of YAML take for different things.
const SCALARS: &[&str] = &[
    "on",
    "On",
    "oN",
    "off",
    "yes",
    "y",
    "Y",
    "n",
    "No",
    "true",
    "TRUE",
    "tRue",
    "null",
    "Null",
    "nULL",
    "~",
    "",
    "=",
    "<<",
    "1.10",
    "1.0",
    "10",
    "-10",
    "+10",
    "0",
    "-0",
    "00",
    "010",
    "08",
    "0o17",
    "0O17",
    "0x1F",
    "0X1f",
    "-0x1F",
    "0b11",
    "0b-1",
    "0b+1",
    "-0b11",
    "0b12",
    "1_000",
    "_1",
    "1_",
    "1__0",
    "0x_1F",
    "1e3",
    "1E3",
    "1e+3",
    "1e",
    "4e501234",
    "-4e501234",
    "1e-400",
    "12e03",
    "5.",
    ".5",
    ".5e3",
    "-.5",
    "+.5",
    ".5_0",
    "1_0.5",
    ".",
    "..",
    "...",
    ".inf",
    "-.inf",
    "+.inf",
    ".nan",
    "+.nan",
    "inf",
    "nan",
    "Infinity",
    "12:30",
    "1:2:3.5",
    "190:20:30",
    "2001-01-01",
    "2001-12-14t21:59:43.10-05:00",
    "2001-12-14 21:59:43",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "-9223372036854775809",
    "+18446744073709551615",
    "a b",
    "a#b",
    "a #b",
    "a: b",
    "a:b",
    "a :b",
    ":a",
    "-a",
    "- a",
    "?a",
    "? a",
    "a?",
    "!a",
    "!!str 1",
    "! 1",
    "!!int \"1\"",
    "!!binary aGk=",
    "!!float 1",
    "!local a",
    "&a b",
    "*a",
    "@a",
    "`a",
    "%a",
    "|a",
    ">a",
    "[a]",
    "{a}",
    "[a, b]",
    "{a: b}",
    "a,b",
    "a, b",
    "a]",
    "a}",
    "'a''b'",
    "'a\\nb'",
    "\"a\\nb\"",
    "\"a\\x41\\u00e9\\U0001F600\"",
    "\"a\\ b\\_\\N\\L\\P\\e\\0\\/\"",
    "\"a\\'b\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"a\\\n    b\"",
    "\"a \\\n    b\"",
    "\"a\n    b\"",
    "\"a  \n\n    b\"",
    "'a\n\n\n    b'",
    "a\n    b",
    "a\n\n    b",
    "a # c\n    b",
    "a\n    # c",
    "a\n    b: c",
    "|\n    a",
    "|\n    a\n",
    "|-\n    a",
    "|+\n    a\n\n",
    ">\n    a\n    b\n",
    ">-\n    a\n\n    b",
    ">\n    a\n      b\n    c",
    "|\n      a\n    b",
    "|1\n   a",
    "|2\n      a",
    "|2-\n      a\n    b",
    "|-2\n      a",
    "|\n\n    a",
    "|\n      \n    a",
    "|\n     \n    a",
    "|\n    \ta",
    "|\n\ta",
    "|\n    a\t\n",
    "|\n    a  \n  ",
    "|\n    # a",
    "|\n    a\n  # c",
    "| # c\n    a",
    "|# c\n    a",
    "|0\n    a",
    "|10\n    a",
    ">\n\n    a\n\n\n    b\n\n",
    ">\n    a\n    \tb",
    ">2\n      a\n     b\n",
    "|\n",
    "|",
    ">-",
    "|+\n\n",
    "'a\tb'",
    "\"a\tb\"",
    "a\tb",
    "a\t",
    "\ta",
    "a\t# c",
    "\"a\"\t# c",
    "\"a\"# c",
    "'a'b",
    "'a' b",
    "\"a",
    "'a",
    "a\r\n    b",
    "a\r    b",
    "|\r\n    a\r\n    b",
    "|\r    a",
    "'a\r\n\r\n    b'",
    "---",
    "--- a",
    "|\n    ---\n    a",
    "'---'",
    "|\n---\n",
    "a\u{a0}",
    "\u{a0}a",
    "\u{3000}",
    "é",
    "😀",
    "a\u{85}b",
    "'a\u{85}b'",
    "\"a\u{85}\"",
    "|\n    a\u{85}    b",
    "a\u{2028}",
    "'a \u{2028} b'",
    "|-\n    a\u{2029}",
    "\u{feff}a",
    "'\u{feff}'",
    "a\u{feff}",
    "'a\u{7f}'",
    "'a\u{80}'",
    "'a\u{9f}'",
    "'a\u{1}'",
    "'a\u{1b}'",
    "'a\0'",
    "'\u{fffe}'",
    "'\u{fffd}'",
    "'\u{e000}'",
    "'\u{10ffff}'",
];

/// What longer texts are made of.
const TOKENS: &[&str] = &[
    "a", "b", "é", "😀", " ", "  ", "\t", "\n", "\n    ", "\n      ", "\n  ", "\r\n    ", "\r", "#", " #", ":", ": ",
    "-", "- ", "?", ",", ", ", "[", "]", "{", "}", "'", "''", "\"", "\\", "\\n", "\\\n    ", "\\x41", "\\u0085", "|",
    "|-", ">", ">-", "2", "+", "&", "*", "!", "!!str ", "%", "@", "`", "~", "=", "<<", "0", "1", "e", ".", "_", "0x",
    "yes", "null", "\u{85}", "\u{2028}", "\u{feff}", "\u{a0}", "---", "\n---\n", "...", "\u{7f}",
];

/// A fixed sequence of numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn text(&mut self, most: usize) -> String {
        (0..=self.roll(most)).map(|_| TOKENS[self.roll(TOKENS.len())]).collect()
    }

    /// A scalar in any style, seldom a valid one.
    fn scalar(&mut self) -> String {
        let text = self.text(6);
        match self.roll(6) {
            0 => format!("'{}'", text.replace('\'', "''")),
            1 => format!("\"{text}\""),
            2 => format!("|{}\n    {text}", ["", "-", "+", "2", "2-"][self.roll(5)]),
            3 => format!(">{}\n    {text}", ["", "-", "+", "2", "2-"][self.roll(5)]),
            4 => SCALARS[self.roll(SCALARS.len())].to_owned() + &text,
            _ => text,
        }
    }
}

const HEAD: &str =
    "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata:\n  name: NAME\n  namespace: shop\n";

/// Where a scalar may stand.
const PLACES: &[&str] = &[
    "  labels: {a: b}\nspec:\n  name: NAME\n  value: SCALAR\n  description: d\n",
    "spec:\n  name: NAME\n  value: SCALAR",
    "spec: {name: NAME, value: SCALAR, description: d}\n",
    "spec:\n  name: NAME\n  value:\n    SCALAR\n",
    "  labels:\n    a: SCALAR\nspec:\n  name: NAME\n  value: v\n",
    "  labels:\n    SCALAR: x\n    b: c\nspec:\n  name: NAME\n  value: v\n",
    "  labels: {SCALAR: x}\nspec:\n  name: NAME\n  value: v\n",
    "  annotations:\n    a: SCALAR\n    b: c\nspec:\n  name: NAME\n  value: v\n",
    "# SCALAR\nspec:\n  name: NAME\n  value: v # SCALAR\n",
];

fn files() -> BTreeMap<String, String> {
    let mut dice = Dice(9);
    let fixed = SCALARS.iter().flat_map(|scalar| PLACES.iter().map(move |place| ((*scalar).to_owned(), *place)));
    let random: Vec<_> = (0..4000).map(|_| (dice.scalar(), PLACES[dice.roll(PLACES.len())])).collect();
    let file = |(number, (scalar, place)): (usize, (String, &str))| {
        let name = format!("c{number:05}");
        let text = format!("{HEAD}{place}").replace("NAME", &name).replace("SCALAR", &scalar);
        (name, text)
    };
    fixed.chain(random).enumerate().map(file).collect()
}

/// What kubectl reads in a folder, by name; files that it cannot read are missing.
async fn read_by_kubectl(plugin: &Plugin, folder: &str) -> BTreeMap<String, Value> {
    let create = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", folder];
    let ran = plugin.kubectl(&create, b"").await;
    let objects = serde_json::Deserializer::from_str(&ran.out).into_iter::<Value>().map(Result::unwrap);
    objects.map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_is_what_kubectl_reads_or_the_file_is_refused() {
    let site = Site::new("yaml-read").await;
    let plugin = Plugin::new(&site).await;
    let key = SealingKey::new(Zeroizing::new([9; 32])).unwrap();
    let published = PublishedKey::new(key.public().clone(), jiff::Timestamp::now()).to_json().unwrap();
    let published = plugin.folder.file("key.json", published);
    let files = files();
    let folder = plugin.folder.path().join("files");
    fs::create_dir(&folder).unwrap();
    for (name, text) in &files {
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
    let folder_name = folder.to_str().unwrap();
    let plain = read_by_kubectl(&plugin, folder_name).await;

    let checked = plugin.run(&["validate", "--allow-plaintext", "-o", "json", "-f", folder_name]).await;
    let findings: Vec<Value> = serde_json::from_str(&checked.out).unwrap();
    let name_of = |finding: &Value| finding["file"].as_str().unwrap().rsplit('/').next().unwrap().replace(".yaml", "");
    let refused: BTreeSet<String> = findings.iter().map(name_of).collect();
    for name in &refused {
        fs::remove_file(folder.join(format!("{name}.yaml"))).unwrap();
    }
    plugin.run(&["seal", "--public-key", &published, "-f", folder_name]).await.ok();
    let sealed = read_by_kubectl(&plugin, folder_name).await;

    let (mut wrong, mut unread) = (Vec::new(), Vec::new());
    for (name, text) in files.iter().filter(|(name, _)| !refused.contains(*name)) {
        let Some(plain) = plain.get(name) else {
            unread.push(text);
            continue;
        };
        let Some(sealed) = sealed.get(name) else {
            wrong.push(format!("kubectl cannot read what was sealed: {text:?}"));
            continue;
        };
        let (mut plain, mut sealed) = (plain.clone(), sealed.clone());
        let (read, written) = (plain["spec"]["value"].take(), sealed["spec"]["value"].take());
        if plain != sealed {
            wrong.push(format!("sealing changes {text:?}: {plain} {sealed}"));
        }
        let opened = written.as_str().map(|text| match Sealed::parse(text) {
            Ok(sealed) => {
                let value = sealed.open(&key, "shop", name).unwrap();
                String::from_utf8(value.as_bytes().to_vec()).unwrap()
            }
            Err(_) => "left in the file".to_owned(),
        });
        if opened.as_deref() != read.as_str() || written.is_null() != read.is_null() {
            wrong.push(format!("{text:?}: kubectl reads {read}, sealed is {opened:?}"));
        }
        let labels = plain["metadata"]["labels"].as_object().into_iter().flatten();
        wrong.extend(
            labels.filter(|(_, value)| value.is_number() || value.is_boolean()).map(|_| format!("label: {text:?}")),
        );
    }
    let (all, accepted) = (files.len(), files.len() - refused.len());
    let read = files.keys().filter(|name| plain.contains_key(*name) && !refused.contains(*name)).count();
    println!(
        "{all} files; kubectl reads {}, seal {accepted}, both {read}; {} differ, {} are sealed that kubectl cannot read",
        plain.len(),
        wrong.len(),
        unread.len()
    );
    assert!(wrong.is_empty(), "{} of {all}: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
    assert!(unread.is_empty(), "kubectl cannot read {}: {:#?}", unread.len(), &unread[..unread.len().min(40)]);
    // Refusing everything would be no reading.
    assert!(read * 3 > plain.len() * 2, "of {} files that kubectl reads, only {read} are sealed", plain.len());
}

/// Documents of a stream; NAME is each one's own.
const DOCUMENTS: &[&str] = &[
    "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {name: NAME, namespace: shop}\nspec:\n  \
     name: NAME\n  value: v-NAME\n",
    "{\"apiVersion\": \"managedsecrets.dev/v1alpha1\", \"kind\": \"ManagedSecret\", \"metadata\": {\"name\": \"NAME\", \
     \"namespace\": \"shop\"}, \"spec\": {\"name\": \"NAME\", \"value\": \"v-NAME\"}}\n",
    "{apiVersion: managedsecrets.dev/v1alpha1, kind: ManagedSecret, metadata: {name: NAME, namespace: shop}, spec: {name: \
     NAME, value: v-NAME}}\n",
    "apiVersion: managedsecrets.dev/v1alpha1\r\nkind: ManagedSecret\r\nmetadata: {name: NAME, namespace: shop}\r\nspec: \
     {name: NAME, value: v-NAME}\r\n",
    "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {name: NAME, namespace: shop}\nspec:\n  \
     name: NAME\n  value: |\n    v-NAME\n    ---\n    ...\n",
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: managedsecrets.dev/v1alpha1\n  kind: ManagedSecret\n  metadata: \
     {name: NAME, namespace: shop}\n  spec: {name: NAME, value: v-NAME}\n",
    "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecretList\nitems:\n- metadata: {name: NAME, namespace: \
     shop}\n  spec: {name: NAME, value: v-NAME}\n",
    // No list by its kind, and one to kubectl.
    "apiVersion: v1\nkind: ConfigMap\nitems:\n- apiVersion: managedsecrets.dev/v1alpha1\n  kind: ManagedSecret\n  \
     metadata: {name: NAME, namespace: shop}\n  spec: {name: NAME, value: v-NAME}\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, namespace: shop}\n",
    "",
    "# a comment\n",
    "null\n",
];

/// Documents whose kind is not what it seems: of a field that is given twice, kubectl reads the last one.
const DISGUISED: &[&str] = &[
    "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {name: NAME, namespace: shop}\nspec: {name: \
     NAME, value: v-NAME}\nkind: ConfigMap\napiVersion: v1\n",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, namespace: shop}\nspec: {name: NAME, value: v-NAME}\nkind: \
     ManagedSecret\napiVersion: managedsecrets.dev/v1alpha1\n",
    "{\"kind\": \"ManagedSecret\", \"apiVersion\": \"managedsecrets.dev/v1alpha1\", \"metadata\": {\"name\": \"NAME\", \
     \"namespace\": \"shop\"}, \"spec\": {\"name\": \"NAME\", \"value\": \"v-NAME\"}, \"\\u006bind\": \"ConfigMap\", \
     \"apiVersion\": \"v1\"}\n",
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: managedsecrets.dev/v1alpha1\n  kind: ManagedSecret\n  metadata: \
     {name: NAME, namespace: shop}\n  spec: {name: NAME, value: v-NAME}\nitems: []\n",
    "x: [&k kind, &v apiVersion]\n*k : ManagedSecret\n*v : managedsecrets.dev/v1alpha1\nmetadata: {name: NAME, namespace: \
     shop}\nspec: {name: NAME, value: v-NAME}\n",
];

/// What may stand between two documents, before the first and behind the last.
const BETWEEN: &[&str] = &[
    "---\n",
    "---\n",
    "---\n",
    "---\n",
    "---\r\n",
    "---\t\n",
    "--- # a comment\n",
    "---\n---\n",
    "...\n",
    "...\n---\n",
    "---\n...\n",
    "%YAML 1.1\n---\n",
    "...\n%YAML 1.1\n---\n",
    "%TAG ! tag:x,2000:\n---\n",
    " ---\n",
    "----\n",
    "--- {}\n",
    "---x\n",
    "# a comment\n---\n# another\n",
    "\u{feff}---\n",
    "---\n\u{feff}",
    "\u{feff}",
    "---\r",
    "\u{2028}---\n",
    "\n\n",
    "",
];

#[tokio::test(flavor = "multi_thread")]
async fn of_several_documents_kubectl_sees_the_same_sealed_or_the_file_is_refused() {
    let site = Site::new("yaml-stream").await;
    let plugin = Plugin::new(&site).await;
    let key = SealingKey::new(Zeroizing::new([9; 32])).unwrap();
    let published = PublishedKey::new(key.public().clone(), jiff::Timestamp::now()).to_json().unwrap();
    let published = plugin.folder.file("key.json", published);
    let folder = plugin.folder.path().join("files");
    fs::create_dir(&folder).unwrap();
    let folder_name = folder.to_str().unwrap();
    let mut dice = Dice(4);
    let files: Vec<String> = (0..1500)
        .map(|file| {
            let mut text = if dice.roll(3) == 0 { BETWEEN[dice.roll(BETWEEN.len())] } else { "" }.to_owned();
            for number in 0..=dice.roll(3) {
                let documents = if dice.roll(16) == 0 { DISGUISED } else { DOCUMENTS };
                text += &documents[dice.roll(documents.len())].replace("NAME", &format!("f{file:04}-{number}"));
                text += BETWEEN[dice.roll(BETWEEN.len())];
            }
            text
        })
        .collect();
    let path = |file: usize| folder.join(format!("f{file:04}.yaml"));
    for (file, text) in files.iter().enumerate() {
        fs::write(path(file), text).unwrap();
    }
    let plain = read_items_by_kubectl(&plugin, folder_name).await;
    let checked = plugin.run(&["validate", "--allow-plaintext", "-o", "json", "-f", folder_name]).await;
    let findings: Vec<Value> = serde_json::from_str(&checked.out).unwrap();
    let refused: BTreeSet<&str> = findings.iter().map(|it| it["file"].as_str().unwrap()).collect();
    for file in &refused {
        fs::remove_file(file).unwrap();
    }
    plugin.run(&["seal", "--public-key", &published, "-f", folder_name]).await.ok();
    let sealed = read_items_by_kubectl(&plugin, folder_name).await;

    let mut wrong = Vec::new();
    let mut agreed = 0;
    for (file, text) in files.iter().enumerate().filter(|(file, _)| path(*file).exists()) {
        let prefix = format!("f{file:04}");
        let of = |objects: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
            let own = objects.iter().filter(|(name, _)| name.starts_with(&prefix));
            own.map(|(name, object)| (name.clone(), object.clone())).collect()
        };
        let (mut plain, sealed) = (of(&plain), of(&sealed));
        agreed += usize::from(!plain.is_empty());
        for (name, object) in &mut plain {
            if let Some(text) = sealed.get(name).and_then(|it| it["spec"]["value"].as_str()) {
                let opened = Sealed::parse(text).ok().and_then(|sealed| sealed.open(&key, "shop", name).ok());
                let is_same = opened.is_some_and(|value| {
                    object["spec"]["value"].as_str().is_some_and(|plain| value.same_as_bytes(plain.as_bytes()))
                });
                if is_same {
                    object["spec"]["value"] = Value::from(text);
                }
            }
        }
        let is_plain = sealed.values().any(|it| it["spec"]["value"].as_str().is_some_and(|it| it.starts_with("v-")));
        if plain != sealed || is_plain {
            wrong.push(text);
        }
    }
    println!("{} files; refused {}, read by kubectl and sealed {agreed}", files.len(), refused.len());
    assert!(wrong.is_empty(), "{} of {}: {:#?}", wrong.len(), files.len(), &wrong[..wrong.len().min(20)]);
    // Refusing everything would be no reading.
    assert!(agreed > 200, "{agreed}");
}

/// What kubectl reads in a folder, by name, the items of lists each alone.
async fn read_items_by_kubectl(plugin: &Plugin, folder: &str) -> BTreeMap<String, Value> {
    let create = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", folder];
    let ran = plugin.kubectl(&create, b"").await;
    let objects = serde_json::Deserializer::from_str(&ran.out).into_iter::<Value>().map(Result::unwrap);
    let items = objects.flat_map(|object| object["items"].as_array().cloned().unwrap_or_else(|| vec![object]));
    items.map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_read_by_kubectl_as_it_was_meant() {
    let site = Site::new("yaml-write").await;
    let plugin = Plugin::new(&site).await;
    let mut dice = Dice(7);
    let odd_keys = [
        "on",
        "y",
        "N",
        "yes",
        "1.10",
        "0x1F",
        "1_000",
        "0b11",
        "010",
        "a.b/no",
        "1e3",
        "12",
        "null",
        "true",
        "2001-01-01",
    ];
    let mut texts: Vec<String> = SCALARS.iter().map(|text| (*text).to_owned()).collect();
    texts.extend((0..2000).map(|_| dice.text(8)));
    let mut written = BTreeMap::new();
    for (number, texts) in texts.chunks(100).enumerate() {
        let name = format!("o{number:03}");
        let annotations: BTreeMap<_, _> =
            texts.iter().enumerate().map(|(at, text)| (format!("t{at}"), text.clone())).collect();
        let mut target: BTreeMap<_, _> = annotations.clone().into_iter().take(50).collect();
        // Some with keys that need quotes, some without.
        if number % 3 == 0 {
            target.extend(odd_keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).take(2 + number % 5));
        }
        let object = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": site.namespace, "annotations": annotations,
                "labels": {odd_keys[number % odd_keys.len()]: "yes"}},
            "spec": {"name": name.to_uppercase(), "generate": {}, "suspend": true, "target": {"annotations": target}},
        });
        written.insert(name, object);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": written.values().collect::<Vec<_>>()});
    plugin.kubectl(&["create", "-f", "-"], list.to_string().as_bytes()).await.ok();
    let exported = plugin.run(&["export"]).await.ok();
    let file = plugin.folder.file("exported.yaml", &exported);
    let read = read_by_kubectl(&plugin, &file).await;
    assert_eq!(read.len(), written.len());
    for (name, written) in written {
        for pointer in ["/metadata/labels", "/metadata/annotations", "/spec"] {
            let (read, written) = (read[&name].pointer(pointer).unwrap(), written.pointer(pointer).unwrap());
            for (key, value) in written.as_object().unwrap() {
                assert_eq!(read.get(key), Some(value), "{name}: {pointer}: {key}");
            }
        }
    }
}
