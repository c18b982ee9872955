//! How a selectable field with any character is asked for.

use kube::ResourceExt;
use kube::api::ListParams;
use testkit::shared::{self, TestNamespace};

use super::{apply, gadget, gadgets};

const NAMES: [&str; 6] = ["plain", "a=b", "a,b", r"a\b", "=", "_+=-@#$"];

/// `\`, `=` and `,` are escaped with a backslash.
fn escaped(name: &str) -> String {
    name.replace('\\', r"\\").replace('=', r"\=").replace(',', r"\,")
}

#[tokio::test]
async fn every_character_can_be_selected() {
    let control_plane = shared::control_plane().await.unwrap();
    let (namespace, client) = TestNamespace::shared("selectors").await.unwrap();
    let gadgets = gadgets(client, &namespace.name);
    for (index, name) in NAMES.iter().enumerate() {
        let mut object = gadget(&format!("gadget-{index}"));
        object["spec"]["name"] = (*name).into();
        apply(&gadgets, &object).await.unwrap();
    }
    for (index, name) in NAMES.iter().enumerate() {
        let selector = format!("spec.name={}", escaped(name));
        let found = gadgets.list(&ListParams::default().fields(&selector)).await.unwrap();
        let found: Vec<_> = found.iter().map(ResourceExt::name_any).collect();
        assert_eq!(found, [format!("gadget-{index}")], "{selector}");

        // kubectl passes a selector on as it is.
        let arguments = ["get", "gadgets", "-n", &namespace.name, "--field-selector", &selector, "-o", "name"];
        let found = control_plane.access().kubectl_ok(&arguments).await.unwrap();
        assert_eq!(found.trim(), format!("gadget.facts.managedsecrets.dev/gadget-{index}"), "{selector}");
    }
}
