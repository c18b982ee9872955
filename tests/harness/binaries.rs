//! Where the control plane's programs come from: `KUBEBUILDER_ASSETS`, else the cache, else Go.
//!
//! The cache lies outside the tree and is keyed by version, so that neither a clean checkout nor a new branch builds
//! them again. A lock keeps two builds from colliding; a program appears under its name only when it is complete.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::error::{Context, Error, Result};
use super::supervisor::{Process, Supervisor};

/// What a control plane consists of, besides etcd.
const KUBERNETES_PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubectl"];

/// How often a running build says that it is still alive.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The programs of one control plane.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kubectl of the same version.
    pub kubectl: PathBuf,
}

/// The Kubernetes version asked for by `K8S`, as its folder below `tests/controlplane` is called: `1.36` when it is unset.
pub fn kubernetes_minor() -> Result<&'static str> {
    let value = env::var("K8S").unwrap_or_default();
    match value.as_str() {
        "" | "1.36" => Ok("1.36"),
        "1.34" => Ok("1.34"),
        "1.37" => Ok("1.37"),
        _ => Err(Error::Setting { variable: "K8S", value, expected: "1.34, 1.36 or 1.37" }),
    }
}

/// Finds the programs, and builds what is missing: minutes, once per version. Blocks.
pub fn find_or_build() -> Result<Binaries> {
    if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS").filter(|assets| !assets.is_empty()) {
        return from_folders(Path::new(&assets), Path::new(&assets));
    }
    let kubernetes = Module::read(&format!("controlplane/kubernetes-{}", kubernetes_minor()?), "k8s.io/kubernetes")?;
    let etcd = Module::read("controlplane/etcd", "go.etcd.io/etcd/server/v3")?;
    let cache = cache_folder()?.join("controlplane");
    let kubernetes_folder = cache.join(&kubernetes.version);
    let etcd_folder = cache.join(format!("etcd-{}", etcd.version));

    let wanted = [(&etcd, &etcd_folder, "etcd", etcd.package.to_owned(), "-s -w".to_owned())].into_iter().chain(
        KUBERNETES_PROGRAMS.into_iter().map(|program| {
            let package = format!("{}/cmd/{program}", kubernetes.package);
            (&kubernetes, &kubernetes_folder, program, package, kubernetes.version_flags())
        }),
    );
    for (module, folder, program, package, flags) in wanted {
        module.build_unless_there(folder, program, &package, &flags)?;
    }
    from_folders(&kubernetes_folder, &etcd_folder)
}

/// A folder with a program called `jq`, for the commands of the documents: gojq, built like the rest. Blocks.
pub fn jq_folder() -> Result<PathBuf> {
    let module = Module::read("controlplane/jq", "github.com/itchyny/gojq")?;
    let folder = cache_folder()?.join(format!("jq-{}", module.version));
    module.build_unless_there(&folder, "jq", "github.com/itchyny/gojq/cmd/gojq", "-s -w")?;
    Ok(folder)
}

/// Helm of a major version, 3 or 4, built like the rest. Blocks.
pub fn helm(major: u8) -> Result<PathBuf> {
    let (pinned, package) =
        if major == 3 { ("gitops/helm-3", "helm.sh/helm/v3") } else { ("gitops/helm-4", "helm.sh/helm/v4") };
    let module = Module::read(pinned, package)?;
    let folder = cache_folder()?.join(format!("helm-{}", module.version));
    module.build_unless_there(&folder, "helm", &format!("{package}/cmd/helm"), "-s -w")?;
    Ok(folder.join("helm"))
}

/// Our program that applies as Argo CD and Flux do, with their libraries; built again when its source changes. Blocks.
pub fn appliers() -> Result<PathBuf> {
    let module = Module::ours("gitops/appliers")?;
    let folder = cache_folder()?.join(format!("appliers-{}", module.version));
    module.build_unless_there(&folder, "appliers", ".", "-s -w")?;
    Ok(folder.join("appliers"))
}

fn from_folders(kubernetes: &Path, etcd: &Path) -> Result<Binaries> {
    let program = |folder: &Path, name: &str| {
        let path = folder.join(name);
        if path.is_file() { Ok(path) } else { Err(Error::AssetMissing(path)) }
    };
    Ok(Binaries {
        etcd: program(etcd, "etcd")?,
        apiserver: program(kubernetes, "kube-apiserver")?,
        controller_manager: program(kubernetes, "kube-controller-manager")?,
        kubectl: program(kubernetes, "kubectl")?,
    })
}

/// `MANAGED_SECRETS_CACHE`, else `managed-secrets` below the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MANAGED_SECRETS_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("managed-secrets")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/managed-secrets")))
        .ok_or(Error::Setting {
            variable: "MANAGED_SECRETS_CACHE",
            value: String::new(),
            expected: "a folder, since neither XDG_CACHE_HOME nor HOME is set",
        })
}

/// A Go module below `tests`: it pins the versions of one set of tools.
struct Module {
    folder: PathBuf,
    package: &'static str,
    version: String,
}

impl Module {
    /// `package` is the required module whose version counts.
    fn read(name: &str, package: &'static str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let go_mod = folder.join("go.mod");
        let text = fs::read_to_string(&go_mod).context("read", &go_mod)?;
        let version = text
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(package))
            .find_map(|rest| rest.trim_start().strip_prefix('v')?.split_whitespace().next())
            .ok_or_else(|| Error::Format {
                what: go_mod.display().to_string(),
                why: format!("it does not require {package}"),
            })?
            .to_owned();
        Ok(Self { folder, package, version })
    }

    /// A program of our own; what counts as its version is a digest of its source.
    fn ours(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let entries = fs::read_dir(&folder).context("read", &folder)?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let mut digest = Sha256::new();
        for file in files {
            digest.update(fs::read(&file).context("read", &file)?);
        }
        Ok(Self { folder, package: "", version: hex::encode(&digest.finalize()[..6]) })
    }

    /// Linker flags that let the programs report their version: v0.0.0 without them.
    fn version_flags(&self) -> String {
        let mut parts = self.version.split('.');
        let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
        let variable = "k8s.io/component-base/version.git";
        format!("-s -w -X {variable}Version=v{} -X {variable}Major={major} -X {variable}Minor={minor}", self.version)
    }

    fn build_unless_there(&self, folder: &Path, program: &str, package: &str, flags: &str) -> Result<()> {
        let path = folder.join(program);
        if path.is_file() {
            return Ok(());
        }
        fs::create_dir_all(folder).context("create", folder)?;
        let lock_path = folder.join(".lock");
        let lock = File::create(&lock_path).context("create", &lock_path)?;
        if lock.try_lock().is_err() {
            say(&format!("waiting for another build of {program} {} …", self.version));
            lock.lock().context("lock", &lock_path)?;
        }
        if path.is_file() {
            return Ok(());
        }
        self.build(folder, program, package, flags)
    }

    fn build(&self, folder: &Path, program: &str, package: &str, flags: &str) -> Result<()> {
        let there = Command::new("go").arg("version").stdout(Stdio::null()).status();
        if there.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Err(Error::GoMissing(folder.to_owned()));
        }
        say(&format!("building {program} {} (first time only, a few minutes) …", self.version));
        let partial = folder.join(format!(".{program}.partial"));
        // Supervised: a build that outlived us would write beside the one of who takes the lock next.
        let supervisor = Supervisor::start("build")?;
        let go = Process::new("go")
            .args(["build", "-C"])
            .arg(&self.folder)
            .args(["-trimpath", "-ldflags", flags, "-o"])
            .arg(&partial)
            .arg(package)
            .env("CGO_ENABLED", "0")
            .env("GOTMPDIR", supervisor.folder());
        supervisor.run("go", &go)?;
        let began = Instant::now();
        let mut said = began;
        let code = loop {
            if let Some(code) = supervisor.exit_code("go") {
                break code;
            }
            if said.elapsed() >= HEARTBEAT {
                said = Instant::now();
                say(&format!("building {program} {} … {} s", self.version, began.elapsed().as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        if code != 0 {
            let log = supervisor.log_end("go");
            return Err(Error::Build { program: program.to_owned(), version: self.version.clone(), log });
        }
        let path = folder.join(program);
        fs::rename(&partial, &path).context("create", &path)?;
        say(&format!("built {program} {} in {} s", self.version, began.elapsed().as_secs()));
        Ok(())
    }
}

/// Shows progress at once, also from within a test, whose `eprintln!` is kept back until it fails.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
