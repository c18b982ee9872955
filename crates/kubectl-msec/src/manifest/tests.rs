//! The reader and the editor, against texts that people write and against generated ones.

use proptest::prelude::*;

use super::*;

/// Sealed text, and a line break.
const GENUINE: &str = include_str!("../../../crypto/tests/vectors/mss1.txt");
/// Stands for sealed text in what is expected, for people to read.
const SHORT: &str = "SEALED";

fn plain<'s>(stream: &'s Stream<'_>) -> Vec<(&'s str, NodeId)> {
    let ours = stream.objects.iter().filter(|object| object.kind == Kind::ManagedSecret);
    ours.filter_map(|object| match stream.held(object) {
        Ok(Held::Plain { text, node }) => Some((text, node)),
        Ok(_) => None,
        Err(problem) => panic!("{problem:?}"),
    })
    .collect()
}

/// Every plain value replaced.
fn sealed(text: &str) -> String {
    let stream = Stream::read(text).unwrap();
    let text = GENUINE.trim_end().to_owned();
    let replaced = plain(&stream).into_iter().map(|(_, node)| (node, text.clone())).collect();
    stream.with(&replaced).unwrap()
}

/// A manifest whose spec.value is written like this, after `  value:`.
fn manifest(value: &str) -> String {
    format!(
        "# before\napiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata:\n  name: db # the name\n\
         spec:\n  name: DB\n  value:{value}\n  # behind\n  description: 'd'\n"
    )
}

#[test]
fn every_style_is_read_by_yamls_rules_and_replaced_in_place() {
    for (style, value, after) in [
        (" hunter2", "hunter2", " S"),
        (" hunter2 # why", "hunter2", " S # why"),
        (" 'hun''ter'", "hun'ter", " 'S'"),
        (" \"h\\u00fc\\n\"  # why", "hü\n", " \"S\"  # why"),
        (" two\n    lines", "two lines", " S"),
        (" 'two\n\n    lines'", "two\nlines", " 'S'"),
        (" |\n    a\n      b", "a\n  b\n", " S"),
        (" |- # why\n    a", "a", " S # why"),
        (" >-\n    a\n    b\n", "a b", " S\n"),
        (" |+\n    a\n\n", "a\n\n\n", " S"),
        (" |2-\n      a\n    b", "  a\nb", " S"),
        (" |-2\n      a", "  a", " S"),
        (" |\n\n    a", "\na\n", " S"),
        ("\n    hunter2", "hunter2", "\n    S"),
        (" # | no header\n    |\n    a", "a\n", " # | no header\n    S"),
        (" !!str 12", "12", " !!str S"),
        (" ! 12", "12", " ! S"),
        (" !!str |\n    a", "a\n", " !!str S"),
        (" '12'", "12", " 'S'"),
        (" http://x/#y", "http://x/#y", " S"),
        (" |\n    # no comment", "# no comment\n", " S"),
        (" |\n    ---\n    mss1.\n", "---\nmss1.\n", " S\n"),
    ] {
        let text = manifest(style);
        let stream = Stream::read(&text).unwrap();
        assert_eq!(plain(&stream).into_iter().map(|(text, _)| text).collect::<Vec<_>>(), [value], "{style:?}");
        let out = sealed(&text);
        let short = |text: &str| text.replace(GENUINE.trim_end(), SHORT);
        assert_eq!(short(&out), short(&manifest(&after.replace('S', SHORT))), "{style:?}");
        assert_eq!(sealed(&out), out, "once more changes nothing");
    }
}

#[test]
fn line_breaks_marks_and_what_stands_around_stay() {
    let lf = format!("\u{feff}# the first\n---\n{}...\n--- # two\n{}", manifest(" |\n    a\n    b"), manifest(" 'x'"));
    for text in [lf.clone(), lf.replace('\n', "\r\n")] {
        let out = sealed(&text);
        let breaks = |text: &str| (text.matches("\r\n").count(), text.matches('\n').count());
        let lines = if text.contains('\r') { (2, 2) } else { (0, 2) };
        assert_eq!(breaks(&out), (breaks(&text).0 - lines.0, breaks(&text).1 - lines.1));
        assert!(out.starts_with("\u{feff}# the first") && out.matches(GENUINE.trim_end()).count() == 2, "{out}");
        let kept =
            |text: &str| text.lines().filter(|line| !line.contains("value:")).map(str::to_owned).collect::<Vec<_>>();
        let without_lines: Vec<_> =
            kept(&text).into_iter().filter(|line| !["    a", "    b"].contains(&line.as_str())).collect();
        assert_eq!(kept(&out), without_lines);
    }
    let end = manifest("x").replace("  value:x\n  # behind\n  description: 'd'\n", "  value: |\n    a");
    assert!(sealed(&end).ends_with(&format!("value: {GENUINE}")));
}

#[test]
fn json_and_flow_style_and_lists_are_read() {
    let object = r#"{"apiVersion":"managedsecrets.dev/v1alpha1","kind":"ManagedSecret","metadata":{"name":"db"},
        "spec":{"name":"DB",	"value":"a\/\ud83c\udfb5\"","target":{"value":"no"}}}"#;
    let list = format!(
        r#"{{"apiVersion":"v1","kind":"List","items":[{object},{{"kind":"List","apiVersion":"v1","items":[{object}]}}]}}"#
    );
    let stream = Stream::read(&list).unwrap();
    assert_eq!(plain(&stream).into_iter().map(|(text, _)| text).collect::<Vec<_>>(), ["a/🎵\""; 2]);
    let out = sealed(&list);
    assert_eq!(out, list.replace(r#""a\/\ud83c\udfb5\"""#, &format!("\"{}\"", GENUINE.trim_end())));
    serde_json::from_str::<Value>(&out).unwrap();

    let typed = "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecretList\nitems:\n- metadata: {name: a}\n  spec: {name: A, value: x}\n";
    assert_eq!(sealed(typed), typed.replace("value: x", &format!("value: {}", GENUINE.trim_end())));
    let others = "apiVersion: example.com/v1\nkind: Secret\nspec: {value: x}\n---\nkind: ConfigMap\napiVersion: v1\ndata: {value: x}\n---\ntext\n---\n";
    assert!(Stream::read(others).unwrap().objects.is_empty());
}

#[test]
fn one_of_kind_and_group_is_enough_and_the_other_is_a_problem() {
    let version = "must be managedsecrets.dev/v1alpha1";
    for (head, says) in [
        ("kind: ManagedSecret", format!("f:1:1: apiVersion: {version}")),
        ("apiVersion: managedsecrets.dev/v1alpha1", "f:1:1: kind: must be ManagedSecret".to_owned()),
        (
            "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecrets",
            "f:2:1: kind: must be ManagedSecret".to_owned(),
        ),
        (
            "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecretList",
            "f:2:1: kind: must be ManagedSecret".to_owned(),
        ),
        (
            "apiVersion: managedsecrets.dev/v1alpha1\nKind: ManagedSecret",
            "f:1:1: kind: must be ManagedSecret".to_owned(),
        ),
        ("kind: ManagedSecret\napiVersion: managedsecret.dev/v1alpha1", format!("f:2:1: apiVersion: {version}")),
        ("kind: ManagedSecret\napiVersion: v1alpha1", format!("f:2:1: apiVersion: {version}")),
        ("kind: ManagedSecret\napiVersion: 1", format!("f:2:1: apiVersion: {version}")),
        ("kind: ManagedSecret\napiVersion:", format!("f:2:1: apiVersion: {version}")),
        ("kind: ManagedSecret\napiVersion: managedsecrets.dev/v1", format!("f:2:1: apiVersion: {version}")),
    ] {
        for text in [
            format!("{head}\nspec: {{value: x}}\n"),
            format!("kind: List\nitems:\n- {}\n  spec: {{value: x}}\n", head.replace('\n', "\n  ")),
        ] {
            let stream = Stream::read(&text).unwrap();
            assert_eq!(plain(&stream).len(), 1, "{text}");
            let problems = &stream.objects[0].problems;
            let said: Vec<_> = problems.iter().map(|problem| problem.in_file("f")).collect();
            assert_eq!(said.len(), 1, "{text}: {said:?}");
            assert!(text.starts_with("kind: List") || said == [says.clone()], "{text}: {said:?}");
        }
    }
    // Of the items of a list of its own, neither word is needed.
    let list = "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecretList\nitems:\n- spec: {value: x}\n";
    let stream = Stream::read(list).unwrap();
    assert!(plain(&stream).len() == 1 && stream.objects[0].problems.is_empty());
    let secret = Stream::read("kind: Secret\nstringData: {a: b}\n").unwrap();
    assert_eq!(secret.objects[0].kind, Kind::Secret);
}

#[test]
fn shared_values_are_problems_with_their_location() {
    let problems_of = |text: &str| {
        let stream = Stream::read(text).unwrap();
        let object = stream.objects.last().unwrap();
        let mut problems = object.problems.clone();
        problems.extend(stream.held(object).err());
        problems.into_iter().map(|problem| problem.in_file("f")).collect::<Vec<_>>().join(" | ")
    };
    let head = "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\n";
    for (rest, says) in [
        ("spec:\n  value: &v x\n", "f:4:13: spec.value: must be written here"),
        ("spec: &s\n  value: x\n", "f:4:10: spec.value: must be written here"),
        ("x: &v x\nspec:\n  value: *v\n", "f:5:10: spec.value: must be written here"),
        ("spec:\n  value: *hunter2\n", "f:4:10: spec.value: must be in quotes"),
        ("x: &b {value: x}\nspec:\n  <<: *b\n", "f:5:3: spec.<<: must not be a merge key"),
        ("x: &b {spec: {value: x}}\n<<: *b\n", "f:4:1: <<: must not be a merge key"),
        ("spec:\n  value: x\n  value: y\n", "f:5:3: spec.value: must be given once"),
        ("spec:\n  value: 12\n", "f:4:10: spec.value: must be a quoted string"),
        ("spec:\n  value: yes\n", "f:4:10: spec.value: must be a quoted string"),
        ("spec:\n  value: {a: b}\n", "f:4:10: spec.value: must be a quoted string"),
        ("spec:\n  value: !!binary aGk=\n", "f:4:19: spec.value: must be a quoted string, without a tag"),
        ("spec:\n  value: {{ .Values.x }}\n", "f:4:10: spec.value: must not be a template"),
        ("spec:\n  value: '{{ x }}'\n", "f:4:10: spec.value: must not be a template"),
        ("metadata:\n  labels: {a: 1, a: 2}\n", "f:4:18: metadata.labels.a: must be given once"),
    ] {
        let said = problems_of(&format!("{head}{rest}"));
        assert!(said.contains(says), "{rest:?}: {said}");
        assert!(!said.contains("hunter"), "{said}");
    }
    // A list that repeats an object by an alias: sealed text would fit one of them.
    let list =
        format!("kind: List\napiVersion: v1\nitems:\n- &a\n  {}spec: {{value: x}}\n- *a\n", head.replace('\n', "\n  "));
    assert!(problems_of(&list).contains("must be written here"), "{}", problems_of(&list));

    let error = |text: &str| Stream::read(text).err().unwrap();
    let template = error("{{- if .Values.x }}\nkind: X\n{{- end }}\n");
    assert!(template.rule == Rule::Template && template.message.contains("rendered first"), "{template:?}");
    let broken = error("a: hunter2: b\n");
    assert_eq!(broken.in_file("f"), "f:1:11: invalid YAML: mapping values are not allowed in this context");
}

#[test]
fn what_kubectl_reads_differently_is_refused_with_its_place() {
    let secret = "kind: Secret\napiVersion: v1\nstringData: {a: b}\n";
    let ours = "kind: ManagedSecret\napiVersion: managedsecrets.dev/v1alpha1\n";
    for (text, says) in [
        (format!("# a\u{2028}{secret}"), "f:1:4: must not contain U+2028, which kubectl reads as a line break"),
        (format!("a: b\n\u{feff}{secret}"), "f:2:1: must not contain U+FEFF"),
        (format!("a: b\n--- {{kind: Secret}}\n{secret}"), "f:2:1: must have `---` alone on its line"),
        (format!("a: b\n...\n{secret}"), "f:3:1: must begin after a line of `---`"),
        (format!("a: b\r---\r{secret}"), "must begin after a line of `---`"),
        ("kind: !!binary U2VjcmV0\napiVersion: v1\n".to_owned(), "f:1:16: must not have a tag"),
        ("!!binary a2luZA==: Secret\n".to_owned(), "must not have a tag"),
        (format!("kind: List\nitems: !!seq\n- {}", secret.replace('\n', "\n  ")), "must not have a tag"),
        ("x: &x {kind: Secret}\nkind: ConfigMap\n<<: *x\n".to_owned(), "f:3:1: must not be a merge key"),
        ("x: &x {kind: Secret}\n<<: [*x]\n".to_owned(), "f:2:1: must not be a merge key"),
        (format!("{ours}kind: ConfigMap\napiVersion: v1\n"), "f:3:1: must be given once"),
        (format!("{ours}apiVersion: v1\nkind: ConfigMap\n"), "f:3:1: must be given once"),
        (format!("kind: ConfigMap\napiVersion: v1\n{ours}"), "f:3:1: must be given once"),
        (format!("apiVersion: example.com/v1\n{ours}"), "f:3:1: must be given once"),
        ("kind: ConfigMap\nitems: []\nitems: 1\n".to_owned(), "f:3:1: must be given once"),
        ("{\"kind\": \"Secret\", \"\\u006bind\": \"ConfigMap\"}".to_owned(), "f:1:20: must be given once"),
        ("x: &k kind\n*k : Secret\napiVersion: v1\n".to_owned(), "f:2:1: must not be an alias, as a key"),
        (format!("{ours}spec: {{value: x}}\r\r\n"), "must end its lines in LF or CR LF"),
        (format!("{ours}spec:\n  value: |+\n    x\n  "), "f:6:3: must end in a line break"),
    ] {
        let problem = Stream::read(&text).err().unwrap_or_else(|| panic!("{text:?} is read"));
        assert!(problem.in_file("f").contains(says), "{text:?}: {}", problem.in_file("f"));
    }
    for (rest, says) in [
        ("metadata:\n  labels:\n    on: x\n", "f:5:5: metadata.labels.on: must be in quotes: without them"),
        ("metadata:\n  labels: {1.10: x}\n", "metadata.labels.1.10: must be in quotes: without them"),
        ("metadata:\n  labels: {0x1F: x}\n", "metadata.labels.0x1F: must be in quotes: without them"),
        ("metadata:\n  labels: {!!binary YQ==: x}\n", "must not have a tag"),
        ("metadata:\n  labels: {a: !!int '1'}\n", "metadata.labels.a: must not have a tag"),
    ] {
        let text = format!("{ours}{rest}");
        let stream = Stream::read(&text).unwrap();
        let said: Vec<_> = stream.objects[0].problems.iter().map(|problem| problem.in_file("f")).collect();
        assert!(said.len() == 1 && said[0].contains(says), "{rest:?}: {said:?}");
    }
    // What kubectl cannot read.
    for (rest, says) in [
        ("metadata: {labels: {a: -.inf}}\n", "f:3:24: metadata.labels.a: must be in quotes: kubectl reads a number"),
        ("spec: {value: ?x}\n", "f:3:15: spec.value: must be in quotes: between braces"),
        ("spec: {value: http://x/?q=1}\n", "f:3:15: spec.value: must be in quotes: between braces"),
        ("metadata: {labels: {:a: x}}\n", "f:3:21: metadata.labels.:a: must be in quotes: between braces"),
        ("metadata: {labels: {'a\n  b': x}}\n", "f:3:21: metadata.labels.a b: must be on one line with its colon"),
        ("metadata: {labels: {a\n  : x}}\n", "f:3:21: metadata.labels.a: must be on one line with its colon"),
        ("spec: {value: \"\\\\ \\/\"}\n", "f:3:15: spec.value: must not have the escape"),
        ("spec:\n  value: \"\\uD83D\\uDE00\"\n", "f:4:10: spec.value: must not have the escape"),
        ("spec:\n  value: |\n    \tx\n", "spec.value: must not have a tab in the indentation"),
        ("spec:\n  value: >-\n\n    a\n  \t\n", "spec.value: must not have a tab in the indentation"),
        ("spec:\n  value:\n    \tx\n", "f:5:6: spec.value: must not have a tab in the indentation"),
        ("spec:\n  value: 'x' # c\n\t# d\n", "f:4:10: spec.value: must not have a tab in the indentation"),
    ] {
        let text = format!("{ours}{rest}");
        let stream = Stream::read(&text).unwrap();
        let said: Vec<_> = stream.objects[0].problems.iter().map(|problem| problem.in_file("f")).collect();
        assert!(said.len() == 1 && said[0].contains(says), "{rest:?}: {said:?}");
    }
    for rest in [
        "spec: {value: 'a?', name: \"a?:b\"}\n",
        "spec:\n  value: :a?\n  ? |\n    key\n  : x\n",
        "spec:\n  value: \"\\\\/ \\\\uD83D \\u00e9\"\n",
        "spec:\n  value: |2\n    \tx\n",
        "spec:\n  value: |\n    a\n    \tb\n     \t\n    c\n  name: x\t# c\n\n  # d\n",
        "spec: {value:\n\t'x',\n\t\n  name: y}\n",
    ] {
        let text = format!("{ours}{rest}");
        let Ok(stream) = Stream::read(&text) else { panic!("{rest:?}") };
        assert!(stream.objects[0].problems.is_empty(), "{rest:?}: {:?}", stream.objects[0].problems);
    }
    // What both read alike is read.
    for text in [
        format!("\u{feff}--- # a\n{secret}---\n# nothing\n---\t\n{ours}"),
        format!("{secret}...\n---\n{ours}"),
        format!("x: &x {{a: b}}\ny: {{<<: *x, on: !local z}}\n---\n{secret}--- #\r\n{ours}"),
    ] {
        assert_eq!(Stream::read(&text).map(|stream| stream.objects.len()).ok(), Some(2), "{text:?}");
    }
}

#[test]
fn null_is_no_value_and_sealed_text_may_be_shared() {
    let genuine = GENUINE.trim_end();
    for (value, sealed) in [(" ", false), (" ~", false), (" null", false), (&*format!(" &a {genuine}"), true)] {
        let text = manifest(value);
        let stream = Stream::read(&text).unwrap();
        let held = stream.held(&stream.objects[0]).unwrap();
        assert_eq!(matches!(held, Held::Sealed { node: None, .. }), sealed, "{value}");
        assert!(sealed || matches!(held, Held::Nothing), "{value}");
    }
}

#[test]
fn sealed_text_with_a_line_break_is_told_from_broken_text() {
    let message = |value: &str| {
        let text = manifest(value);
        let stream = Stream::read(&text).unwrap();
        stream.held(&stream.objects[0]).err().unwrap().message
    };
    assert!(message(&format!(" |\n    {GENUINE}")).starts_with("must not end in a line break"));
    assert!(message(&format!(" {}", &GENUINE[..900])).contains("seal the value again"));
}

#[test]
fn copies_in_annotations_are_found() {
    let with = |annotation: &str| {
        format!(
            "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata:\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: |\n      {annotation}\nspec: {{}}\n"
        )
    };
    let copy = r#"{"apiVersion":"managedsecrets.dev/v1alpha1","kind":"ManagedSecret","spec":{"value":"hunter2"}}"#;
    for (annotation, found) in [
        (copy.to_owned(), true),
        (copy.replace("\"value\":", "\"value\" : "), true),
        (copy.replace("hunter2", "mss1.x"), false),
        (copy.replace("managedsecrets.dev", "example.com").replace("ManagedSecret", "ConfigMap"), true),
        (r#"[{"op":"replace","path":"/spec","value":{"value":"hunter2"}}]"#.to_owned(), true),
        (r#"[{"op":"replace","path":"/spec/description","value":"hunter2"}]"#.to_owned(), false),
        (r#"{"kind":"ConfigMap","value":"hunter2"}"#.to_owned(), false),
    ] {
        let text = with(&annotation);
        let stream = Stream::read(&text).unwrap();
        let problems = stream.copies(&stream.objects[0]);
        assert_eq!(problems.len(), usize::from(found), "{annotation}");
        assert!(problems.iter().all(|problem| problem.place.line == 5 && !problem.message.contains("hunter")));
    }
}

#[test]
fn alias_bombs_are_refused_and_loops_end() {
    let mut bomb = "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.extend(["  a", &level.to_string(), ": &a", &level.to_string(), " [", &inner, "]\n"]);
    }
    let began = std::time::Instant::now();
    let stream = Stream::read(&bomb).unwrap();
    assert!(stream.objects[0].problems.iter().any(|problem| problem.message.contains("by aliases")));
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    for text in [
        "kind: ManagedSecret\napiVersion: managedsecrets.dev/v1alpha1\nspec: &s {value: *s}\n",
        "&a\nkind: List\napiVersion: v1\nitems: [*a]\n",
        "&a [*a, {<<: *a}]\n",
    ] {
        drop(Stream::read(text));
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug)]
enum Style {
    Single,
    Double,
    Literal,
    Json,
}

fn written(value: &str, style: Style) -> String {
    match style {
        Style::Single if !value.chars().any(is_escaped) => format!(" '{}'", value.replace('\'', "''")),
        Style::Literal if !value.chars().any(is_escaped) => {
            format!(" |2- # c: |\n    {value}")
        }
        // JSON's escapes are YAML's.
        _ => format!(" {}", escaped(&Value::from(value).to_string())),
    }
}

/// What needs an escape in YAML that JSON takes as it is, and control characters.
fn is_escaped(character: char) -> bool {
    characters::is_odd(character) || character.is_control()
}

fn escaped(json: &str) -> String {
    let escape = |c: char| if characters::is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escape).collect()
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,40}", "\\PC{1,20}", any::<String>(), "[a-z:#|>&*!%@`'\" -]{1,20}"]
        .prop_filter("values are not empty", |value| !value.is_empty())
        .prop_filter("what begins as sealed text, or is a template, is refused", |value| {
            !value.starts_with(SEALED_PREFIX) && !value.contains("{{")
        })
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Single), Just(Style::Double), Just(Style::Literal), Just(Style::Json)]
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read_and_nothing_but_values_changes(
        documents in prop::collection::vec((value(), style(), any::<bool>()), 1..8), crlf in any::<bool>()
    ) {
        let object = |(value, style, json): &(String, Style, bool)| if *json {
            escaped(&serde_json::json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
                "metadata": {"name": "a", "labels": {"value": value}}, "spec": {"value": value, "name": "A"},
            }).to_string()) + "\n"
        } else {
            manifest(&written(value, *style))
        };
        let text = documents.iter().map(object).collect::<Vec<_>>().join("--- # next\n");
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        let stream = Stream::read(&text).map_err(|problem| TestCaseError::fail(format!("{problem:?} in {text:?}")))?;
        let values: Vec<_> = plain(&stream).into_iter().map(|(text, _)| text.to_owned()).collect();
        // In a block scalar, white space at the end of the last line is content, and an empty line is none.
        let expected: Vec<_> = documents.iter().map(|(value, ..)| value.clone()).collect();
        prop_assert_eq!(&values, &expected, "{:?}", text);
        let out = sealed(&text);
        let after = Stream::read(&out).unwrap();
        prop_assert_eq!(after.objects.len(), stream.objects.len());
        for (before, after) in stream.objects.iter().zip(&after.objects) {
            let mut before = before.json.clone();
            before["spec"]["value"] = Value::from(GENUINE.trim_end());
            prop_assert_eq!(&before, &after.json);
        }
        let comments = |text: &str| text.matches("# ").count();
        prop_assert!(comments(&out) <= comments(&text) && out.matches("# behind").count() == text.matches("# behind").count());
        prop_assert_eq!(sealed(&out), out);
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn nor_does_what_looks_like_yaml(lines in prop::collection::vec("[ ]{0,4}(- |\\? |: )?(spec|value|kind|items|<<|&a|\\*a|!!str|\"a\"|'b|\\||>-|#c|---|\\.\\.\\.|\\{|\\}|\\[|\\]|,|\t|\r|é)(:|: |)(ManagedSecret|List|managedsecrets\\.dev/v1alpha1|v1|&a|\\*a|\\||x|)", 0..20)) {
        exercise(&lines.join("\n"));
        exercise(&format!("apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nspec:\n{}", lines.join("\n")));
    }
}

/// Everything that is done with a text.
fn exercise(text: &str) {
    let Ok(stream) = Stream::read(text) else { return };
    let mut replaced = HashMap::new();
    for object in &stream.objects {
        let _ = (stream.copies(object), object.called(None), stream.place(object, "spec.target.name"));
        if let Ok(Held::Plain { node, .. }) = stream.held(object) {
            replaced.insert(node, GENUINE.trim_end().to_owned());
        }
    }
    let _ = stream.with(&replaced);
}

#[test]
fn every_object_with_items_is_a_list_as_for_kubectl() {
    let item = "{apiVersion: managedsecrets.dev/v1alpha1, kind: ManagedSecret, metadata: {name: a}, spec: {value: v}}";
    for kind in ["List", "ConfigMap", "FooList"] {
        let text = format!("apiVersion: v1\nkind: {kind}\nitems:\n- {item}\n");
        let stream = Stream::read(&text).unwrap();
        assert_eq!(stream.objects.len(), 1, "{kind}");
        assert!(matches!(stream.held(&stream.objects[0]), Ok(Held::Plain { text: "v", .. })), "{kind}");
    }
    for text in [
        "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nspec: {value: v}\nitems: []\n".to_owned(),
        format!("spec: {{value: v}}\nkind: ManagedSecret\napiVersion: v1\nkind: List\nitems: [{item}]\n"),
    ] {
        let problem = Stream::read(&text).err().expect("two readings");
        assert_eq!((problem.rule, problem.place.column), (Rule::Ambiguous, 1), "{problem}");
    }
}
