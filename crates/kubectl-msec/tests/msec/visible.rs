//! Text from files never drives the terminal or forges a line of a log.

use super::{CANARY, Folder};

/// What a terminal obeys, what begins a command in a CI log, and what turns or hides text.
const HOSTILE: &str = "a\u{1b}[2Jb\n::error::forged\u{9b}c\u{202e}d\u{200b}";

/// The same as a YAML scalar in double quotes.
fn quoted() -> String {
    let escaped: String = HOSTILE
        .chars()
        .map(|c| if c.is_ascii_graphic() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) })
        .collect();
    format!("\"{escaped}\"")
}

#[test]
fn hostile_text_in_files_is_shown_in_one_line_and_visibly() {
    let head = "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\n";
    let hostile = quoted();
    let folder = Folder::new();
    for (name, text) in [
        (
            "field.yaml",
            format!("{head}metadata: {{name: x, namespace: shop}}\nspec: {{name: X, generate: {{}}, {hostile}: 1}}\n"),
        ),
        (
            "name.yaml",
            format!("{head}metadata: {{name: {hostile}, namespace: shop}}\nspec: {{name: X, value: {CANARY}}}\n"),
        ),
        (
            "secret-name.yaml",
            format!("{head}metadata: {{name: x, namespace: shop}}\nspec: {{name: {hostile}, value: {CANARY}}}\n"),
        ),
        (
            "kind.yaml",
            format!(
                "apiVersion: managedsecrets.dev/v1alpha1\nkind: {hostile}\nmetadata: {{name: x}}\nspec: {{name: X, value: {CANARY}}}\n"
            ),
        ),
        (
            "secret.yaml",
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: {hostile}, namespace: shop}}\nstringData: {{a: {CANARY}, {hostile}: {CANARY}}}\n"
            ),
        ),
        (
            "f\u{1b}[2J\n::error::.yaml",
            format!("{head}metadata: {{name: x, namespace: shop}}\nspec: {{name: X, value: {CANARY}}}\n"),
        ),
    ] {
        folder.write(name, &text);
        for command in [
            &["validate"][..],
            &["validate", "--no-secrets"],
            &["validate", "-o", "json"],
            &["validate", "-o", "sarif", "--no-secrets"],
            &["seal", "-f"],
            &["seal", "--from-secret"],
            &["reseal", "-f"],
            &["restore"],
        ] {
            let sealing = command[0] == "seal" || command[0] == "reseal";
            let key: &[&str] = if sealing { &["--public-key", "key.json"] } else { &[] };
            let ran = folder.run(&[command, &[name], key].concat());
            let shown = format!("{}{}", ran.out, ran.err);
            assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}']), "{command:?} {name:?}: {shown:?}");
            assert!(!shown.lines().any(|line| line.starts_with("::error::")), "{command:?} {name:?}: {shown}");
            assert!(!shown.contains(CANARY), "{command:?} {name:?}");
        }
    }
    // The text is shown with escapes, and not left out.
    let shown = folder.run(&["validate", "field.yaml"]);
    assert!(shown.out.contains("a\\u{1b}[2Jb\\n::error::forged\\u{9b}c\\u{202e}d\\u{200b}"), "{shown:?}");
}
