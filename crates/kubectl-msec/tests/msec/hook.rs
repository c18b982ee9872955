//! The hook and the CI examples of `docs/git.md`, run: plain values do not get into a repository.

use std::{path::Path, process::Command};

use testkit::{markdown::Document, root};

use super::{CANARY, Folder, PLUGIN, Ran, Value, finish, manifest};

/// Runs a script in the folder, with the plugin in its path.
fn bash(folder: &Folder, script: &str) -> Ran {
    let programs = Path::new(PLUGIN).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut command = folder.command("bash", &["-e", "-u", "-o", "pipefail", "-c", script]);
    command.env("PATH", path);
    finish(command, "")
}

/// A repository with the hook of the document.
fn repository() -> (Folder, Document) {
    let folder = Folder::new();
    let document = Document::read("docs/git.md").unwrap();
    let install = document.blocks.iter().find(|block| block.text.contains(".git/hooks/pre-commit")).unwrap();
    let init =
        "git init -q . && git config user.name ann && git config user.email ann@example.com\nrm -f .git/hooks/*\n";
    bash(&folder, &format!("{init}{}", install.text)).ok();
    (folder, document)
}

#[test]
fn a_commit_with_plaintext_is_refused_and_one_with_sealed_text_is_not() {
    let (folder, _) = repository();
    let commit = || bash(&folder, "git commit -qm test");
    folder.write("deploy/a b.yaml", &manifest("a", CANARY));
    folder.write("chart/template.yaml", "{{ if .x }}\nkind: ConfigMap\n{{ end }}\n");
    bash(&folder, "git add deploy chart").ok();
    let refused = commit();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.out.contains("deploy/a b.yaml:8:3: error: spec.value: must be sealed")
            || refused.err.contains("deploy/a b.yaml:8:3"),
        "{refused:?}"
    );
    assert!(!format!("{refused:?}").contains(CANARY));

    // Sealed in the folder, but what is staged is still plain.
    folder.seal(&["-f", "deploy"], "").ok();
    assert_eq!(commit().code, 1);
    bash(&folder, "git add deploy").ok();
    commit().ok();
    // And the other way round: the staged file is sealed, and the file in the folder is plain.
    let sealed = folder.read("deploy/a b.yaml");
    folder.write("deploy/a b.yaml", &sealed.replace("# why", "# why not"));
    bash(&folder, "git add deploy").ok();
    folder.write("deploy/a b.yaml", &manifest("a", CANARY));
    commit().ok();
    let log = bash(&folder, "git log -p --all");
    assert!(!log.ok().contains(CANARY) && log.out.contains("why not"));

    folder.write(
        "secret.yml",
        &format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\nstringData: {{a: {CANARY}}}\n"),
    );
    bash(&folder, "git add secret.yml").ok();
    assert_eq!(commit().code, 1);
    // A file that goes is nothing to check.
    bash(&folder, "git rm -q --cached secret.yml && git checkout -q -- . && git rm -q 'deploy/a b.yaml'").ok();
    commit().ok();
}

#[test]
fn the_ci_examples_refuse_plaintext_too() {
    let (folder, document) = repository();
    let documents: Vec<Value> = document
        .blocks
        .iter()
        .filter(|block| block.language == "yaml" && block.section == "Refuse plaintext in CI")
        .map(|block| serde_saphyr::from_str(&block.text).unwrap())
        .collect();
    let steps = documents[0]["jobs"]["validate"]["steps"].as_array().unwrap();
    let run = steps.iter().find_map(|step| step["run"].as_str()).unwrap();
    let script = documents[1]["secrets"]["script"][0].as_str().unwrap();
    for (value, code) in [(CANARY, 1), ("sealed", 0)] {
        folder.write("deploy/a.yaml", &manifest("a", CANARY));
        if value != CANARY {
            folder.seal(&["-f", "deploy/a.yaml"], "").ok();
        }
        for script in [run, script] {
            assert_eq!(bash(&folder, script).code, code, "{script}");
        }
        let log: Value = serde_json::from_str(&folder.read("findings.sarif")).unwrap();
        assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), usize::try_from(code).unwrap());
    }
}

#[test]
fn the_layout_for_overlays_passes_hook_and_ci_and_a_plain_value_in_one_does_not() {
    let (folder, document) = repository();
    let ci: Vec<_> = document
        .blocks
        .iter()
        .filter(|block| block.language == "yaml" && block.section == "Refuse plaintext in CI")
        .flat_map(|block| {
            block.text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("kubectl-msec "))
        })
        .collect();
    assert_eq!(ci, ["validate --no-secrets -R -f ."]);
    let layout = document.blocks.iter().find(|block| block.section == "Check overlays").unwrap();
    for overlay in ["test", "production"] {
        // As on the page; what is there another program's name is here the one that was built.
        let script = layout.text.replace("kubectl msec", "kubectl-msec").replace("sealing-key.json", "key.json");
        let script = script.replace("namespace: test", &format!("namespace: {overlay}"));
        let script = script.replace("-n test", &format!("-n {overlay}"));
        bash(&folder, &script.replace("overlays/test", &format!("overlays/{overlay}"))).ok();
    }
    let checks = ["git add overlays && git commit -qm layout", "kubectl-msec validate --no-secrets -R -f ."];
    for check in checks {
        assert_eq!(bash(&folder, check).ok(), "");
    }
    let text = folder.read("overlays/test/weather.yaml");
    let value = text.split("value: ").nth(1).unwrap().trim_end();
    assert!(value.starts_with("mss1.") && folder.open(value, "test", "weather-api-key") == "only-an-example");
    folder.write("overlays/test/weather.yaml", &text.replace(value, CANARY));
    for check in checks {
        assert_eq!(bash(&folder, check).code, 1);
    }
}

#[test]
fn the_hook_for_pre_commit_refuses_plaintext() {
    let folder = Folder::new();
    let text = std::fs::read_to_string(root().join(".pre-commit-hooks.yaml")).unwrap();
    let hooks: Value = serde_saphyr::from_str(&text).unwrap();
    let hook = &hooks[0];
    assert!(
        Document::read("docs/git.md")
            .unwrap()
            .blocks
            .iter()
            .any(|block| block.text.contains(hook["id"].as_str().unwrap()))
    );
    folder.write("a.yaml", &manifest("a", CANARY));
    folder.write("b.json", "{}");
    // pre-commit gives the files behind the entry.
    let entry = format!("{} a.yaml b.json", hook["entry"].as_str().unwrap());
    assert_eq!(bash(&folder, &entry).code, 1);
    folder.seal(&["-f", "a.yaml"], "").ok();
    bash(&folder, &entry).ok();
}

#[test]
fn tests_that_a_hook_runs_leave_its_repository_alone() {
    let (outer, _) = repository();
    outer.write("a.yaml", "a: b\n");
    bash(&outer, "git add a.yaml && git commit -qm one").ok();
    let state =
        || bash(&outer, "git log --all --format=%H && git status --porcelain && cat .git/config").ok().to_owned();
    let before = state();
    // As `git commit` runs hooks, from a work tree above all.
    let git = outer.path().join(".git");
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hook::a_commit_with_plaintext_is_refused_and_one_with_sealed_text_is_not"])
        .envs([
            ("GIT_DIR", git.clone()),
            ("GIT_INDEX_FILE", git.join("index")),
            ("GIT_WORK_TREE", outer.path().to_owned()),
        ])
        .output()
        .unwrap();
    assert!(run.status.success() && String::from_utf8_lossy(&run.stdout).contains("1 passed"), "{run:?}");
    assert_eq!(state(), before);
}
