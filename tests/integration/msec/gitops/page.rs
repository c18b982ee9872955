//! The tables of `docs/gitops.md`: written by what the tests saw, or compared with it.

use std::fs;

use parking_lot::Mutex;
use testkit::root;

const PAGE: &str = "docs/gitops.md";

/// Two tests may rewrite the page at once.
static WRITING: Mutex<()> = Mutex::new(());

/// Compares a table of the page with what was seen just now; `UPDATE=1` rewrites it. It is found by its first line.
#[track_caller]
pub(super) fn hold(seen: &str) {
    let _alone = WRITING.lock();
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let head = seen.lines().next().unwrap();
    let start =
        page.find(&format!("{head}\n")).unwrap_or_else(|| panic!("{PAGE} has no table that begins with\n{head}"));
    let end = page[start..].find("\n\n").map_or(page.len(), |end| start + end + 1);
    let known = &page[start..end];
    if known == seen {
        return;
    }
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(path, format!("{}{seen}{}", &page[..start], &page[end..])).unwrap();
    } else {
        panic!("{PAGE} says\n{known}\nand it is now\n{seen}\nUPDATE=1 rewrites it");
    }
}

#[test]
fn the_page_shows_the_chart_and_the_config_map_holds_the_health_check() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let chart = read("tests/gitops/chart/templates/secrets.yaml");
    assert!(read(PAGE).contains(&format!("```yaml\n{chart}```\n")), "{PAGE} shows another chart");
    let check = read("deploy/argocd/health.lua");
    let shipped: k8s_openapi::api::core::v1::ConfigMap =
        serde_saphyr::from_str(&read("deploy/argocd/argocd-cm.yaml")).unwrap();
    let key = "resource.customizations.health.managedsecrets.dev_ManagedSecret";
    assert_eq!(shipped.data.unwrap().get(key), Some(&check));
}
