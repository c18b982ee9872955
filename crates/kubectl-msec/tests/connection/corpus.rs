//! Kubeconfigs, files that they name, environments and flags, made from a seed: good ones, and every kind of bad one.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    Folder,
    recorder::{Authority, Certified},
};

/// What the servers of a test are, for kubeconfigs that name them.
pub(crate) struct World {
    pub(crate) authority: Authority,
    /// Signed nothing that a server shows.
    pub(crate) unrelated: Authority,
    pub(crate) alice: Certified,
    /// URLs of two servers with TLS, and of one without.
    pub(crate) urls: [String; 3],
}

/// One case: what both programs are run with.
#[derive(Debug)]
pub(crate) struct Case {
    /// Environment variables.
    pub(crate) env: Vec<(&'static str, String)>,
    /// kubectl's flags.
    pub(crate) flags: Vec<String>,
}

/// Makes one case from a seed, with its files in the folder.
pub(crate) fn case(world: &World, folder: &Folder, seed: u64) -> Case {
    let mut maker = Maker { world, folder, random: StdRng::seed_from_u64(seed), may_break: seed.is_multiple_of(6) };
    maker.files();
    let files = maker.random.random_range(1..=3);
    let names: Vec<_> = (0..files).map(|index| format!("dir{index}/config")).collect();
    for (index, name) in names.iter().enumerate() {
        let text = maker.kubeconfig(index);
        folder.write(name, text);
    }
    let mut case = Case { env: Vec::new(), flags: Vec::new() };
    maker.place(&names, &mut case);
    maker.flags(&mut case);
    case
}

struct Maker<'a> {
    world: &'a World,
    folder: &'a Folder,
    random: StdRng,
    /// Whether files may be broken as a whole: that hides what else is in them.
    may_break: bool,
}

impl Maker<'_> {
    /// One of these.
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.random.random_range(0..times) == 0
    }

    /// The same, in files that may be broken.
    fn breaks(&mut self, times: u32) -> bool {
        self.may_break && self.once_in(times)
    }

    /// Files that kubeconfigs name by a relative path.
    fn files(&mut self) {
        let world = self.world;
        for index in 0..3 {
            let write = |name: &str, content: &str| self.folder.write(&format!("dir{index}/{name}"), content);
            write("ca.pem", &world.authority.certificate);
            write("alice.pem", &world.alice.certificate);
            write("alice.key", &world.alice.key);
            write("token", &format!("file-{index}"));
            write("token-line", &format!("file-line-{index}\n"));
            write("token-blank", " \n");
            write("empty", "");
            let text = format!(
                "#!/bin/sh\nprintf '{{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\
                 \"status\":{{\"token\":\"exec-{index}\"}}}}'\n"
            );
            let plugin = write("login.sh", &text);
            fs::set_permissions(plugin, fs::Permissions::from_mode(0o755)).unwrap();
        }
        self.folder.write("ca.pem", &world.authority.certificate);
    }

    fn kubeconfig(&mut self, index: usize) -> String {
        if self.once_in(20) {
            return self.one(&["", "# nothing\n", "---\n", "apiVersion: v1\nkind: Config\n"]).to_owned();
        }
        if self.breaks(12) {
            return self
                .one(&[
                    "clusters: [\n",
                    "\tclusters: []\n",
                    "- a\n- b\n",
                    "text\n",
                    "apiVersion: v1\nkind: Secret\n",
                    "apiVersion: v2\nkind: Config\n",
                    "current-context: 5\n",
                    "users: {}\n",
                    "contexts: text\n",
                    "clusters: [text]\n",
                ])
                .to_owned();
        }
        let head =
            self.one(&["apiVersion: v1\nkind: Config\n", "apiVersion: v1\nkind: Config\n", "---\n", "kind: Config\n"]);
        let mut text = head.to_owned();
        let names = ["a", "b", "c"];
        for (list, field) in [("clusters", "cluster"), ("users", "user"), ("contexts", "context")] {
            if self.once_in(40) {
                match self.random.random_range(0..3) {
                    0 => {}
                    1 => text.extend([list, ": null\n"]),
                    _ => text.extend([list, ": []\n"]),
                }
                continue;
            }
            let _ = writeln!(text, "{list}:");
            for name in names {
                if self.once_in(16) {
                    continue;
                }
                let body = match field {
                    "cluster" => self.cluster(),
                    "user" => self.user(index),
                    _ => self.context(),
                };
                let _ = writeln!(text, "- {{name: {name}, {field}: {body}}}");
                if self.breaks(60) {
                    let _ = writeln!(text, "- {{name: {name}, {field}: {body}}}");
                }
            }
        }
        text += self.one(&[
            "current-context: a\n",
            "current-context: a\n",
            "current-context: a\n",
            "current-context: a\n",
            "current-context: b\n",
            "current-context: b\n",
            "current-context: b\n",
            "current-context: c\n",
            "current-context: c\n",
            "current-context: c\n",
            "current-context: ''\n",
            "current-context: gone\n",
            "current-context:\n",
            "",
            "current-context: a\ncurrent-context: b\n",
        ]);
        text += self.one(&[
            "",
            "",
            "",
            "preferences: {}\n",
            "strange: [1, {a: b}]\n",
            "---\ncurrent-context: b\n",
            "...\n",
        ]);
        text
    }

    fn cluster(&mut self) -> String {
        let ca = STANDARD.encode(&self.world.authority.certificate);
        let wrong = STANDARD.encode(&self.world.unrelated.certificate);
        let urls = &self.world.urls;
        let server = match self.random.random_range(0..64) {
            0 => String::new(),
            1 => "server: ''".to_owned(),
            2 => "server: null".to_owned(),
            3 => format!("server: '{}/k8s/c-1'", urls[0]),
            4 => format!("server: '{}/k8s/c-1/'", urls[0]),
            5 | 6 => format!("server: '{}'", urls[2]),
            7 => format!("server: '{}'", urls[2].trim_start_matches("http://")),
            8 => "server: 'https://bad host'".to_owned(),
            10 => format!("server: '{}/'", urls[1]),
            11..=26 => format!("server: '{}'", urls[1]),
            _ => format!("server: '{}'", urls[0]),
        };
        let trust = match self.random.random_range(0..48) {
            0 => String::new(),
            1 => "certificate-authority: /nonexistent/ca.pem".to_owned(),
            2 => "certificate-authority: gone.pem".to_owned(),
            3 => "certificate-authority: empty".to_owned(),
            4 => "insecure-skip-tls-verify: true".to_owned(),
            5 => format!("insecure-skip-tls-verify: true, certificate-authority-data: {ca}"),
            6 => format!("certificate-authority-data: {wrong}"),
            7 => format!("certificate-authority-data: {ca}, certificate-authority: ca.pem"),
            9 => format!("certificate-authority-data: {ca}, tls-server-name: api.example"),
            10 => format!("certificate-authority-data: {ca}, tls-server-name: other.example"),
            11 => format!("certificate-authority-data: '{}'", STANDARD.encode("no certificate")),
            13 => format!(
                "certificate-authority-data: {ca}, insecure-skip-tls-verify: false, extensions: [{{name: x, extension: {{y: 1}}}}]"
            ),
            14..=27 => "certificate-authority: ca.pem".to_owned(),
            _ => format!("certificate-authority-data: {ca}"),
        };
        if self.breaks(60) {
            return self
                .one(&[
                    "text",
                    "[]",
                    "{server: 5}",
                    "{certificate-authority-data: '!'}",
                    "{insecure-skip-tls-verify: 'true'}",
                ])
                .to_owned();
        }
        match self.random.random_range(0..40) {
            0 => "null".to_owned(),
            1 => "{}".to_owned(),
            _ if server.is_empty() || trust.is_empty() => format!("{{{server}{trust}}}"),
            _ => format!("{{{server}, {trust}}}"),
        }
    }

    fn user(&mut self, index: usize) -> String {
        let certificate = STANDARD.encode(&self.world.alice.certificate);
        let key = STANDARD.encode(&self.world.alice.key);
        let v1 = "apiVersion: client.authentication.k8s.io/v1";
        let text = match self.random.random_range(0..60) {
            0 => String::new(),
            1 => "tokenFile: token".to_owned(),
            2 | 3 => "tokenFile: token-line".to_owned(),
            4 => "tokenFile: gone".to_owned(),
            5 => "tokenFile: token-blank".to_owned(),
            6 => format!("token: inline-{index}, tokenFile: token"),
            7 => format!("token: inline-{index}, tokenFile: gone"),
            8 => "username: bob, password: secret".to_owned(),
            9 => format!("username: bob, password: secret, token: inline-{index}"),
            10 => format!("client-certificate-data: {certificate}, client-key-data: {key}"),
            11 => "client-certificate: alice.pem, client-key: alice.key".to_owned(),
            12 => format!("client-certificate: alice.pem, client-key-data: {key}"),
            13 => format!("client-certificate: alice.pem, client-key: alice.key, token: inline-{index}"),
            14 => format!("client-certificate-data: {certificate}"),
            15 => "client-certificate: gone.pem, client-key: alice.key".to_owned(),
            16 => {
                format!("client-certificate: alice.pem, client-certificate-data: {certificate}, client-key: alice.key")
            }
            17 => format!("client-key-data: {key}, token: inline-{index}"),
            18 => format!(
                "token: inline-{index}, as: carol, as-groups: [x, z], as-uid: u1, as-user-extra: {{scopes: [r, w]}}"
            ),
            19 => format!("token: inline-{index}, as-groups: [x]"),
            20 => format!("token: inline-{index}, as-uid: u1"),
            21..=23 => format!("exec: {{{v1}, command: ./login.sh, interactiveMode: Never}}"),
            24 => format!("exec: {{{v1}, command: ./login.sh}}"),
            25 => {
                "exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: ./login.sh, interactiveMode: Never}"
                    .to_owned()
            }
            26 => format!("exec: {{{v1}, command: ./gone.sh, interactiveMode: Never, installHint: get it}}"),
            27 => format!("exec: {{{v1}, command: /bin/false, interactiveMode: IfAvailable}}"),
            28 => format!("exec: {{{v1}, command: ./login.sh, interactiveMode: Always}}"),
            29 => format!("exec: {{{v1}, command: ./login.sh, interactiveMode: Never}}, token: inline-{index}"),
            30 => "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./login.sh}".to_owned(),
            32 => format!("token: inline-{index}, username: ''"),
            _ => format!("token: inline-{index}"),
        };
        if self.breaks(60) {
            return self
                .one(&["[]", "text", "{token: 5}", "{token: true}", "{client-key-data: '!'}", "{exec: text}"])
                .to_owned();
        }
        if self.once_in(40) { "null".to_owned() } else { format!("{{{text}}}") }
    }

    fn context(&mut self) -> String {
        let cluster = if self.once_in(24) { self.one(&["gone", "''"]) } else { self.one(&["a", "b", "c"]) };
        let user = if self.once_in(16) { self.one(&["gone", "''", "null"]) } else { self.one(&["a", "b", "c"]) };
        let namespace =
            self.one(&["", "", ", namespace: ''", ", namespace: shop", ", namespace: null", ", namespace: default"]);
        match self.random.random_range(0..60) {
            0 => "null".to_owned(),
            1 => format!("{{cluster: {cluster}}}"),
            2 => format!("{{user: {user}}}"),
            _ => format!("{{cluster: {cluster}, user: {user}{namespace}}}"),
        }
    }

    /// Says where the files are.
    fn place(&mut self, names: &[String], case: &mut Case) {
        let mut paths: Vec<_> = names.iter().map(|name| self.folder.path().join(name).display().to_string()).collect();
        match self.random.random_range(0..20) {
            0 => case.flags.extend(["--kubeconfig".to_owned(), paths[0].clone()]),
            1 => {
                case.flags.extend(["--kubeconfig".to_owned(), names[0].clone()]);
                case.env.push(("KUBECONFIG", "/nonexistent/config".to_owned()));
            }
            2 => case.flags.extend(["--kubeconfig".to_owned(), "/nonexistent/config".to_owned()]),
            3 => {
                fs::rename(self.folder.path().join("dir0"), self.folder.path().join(".kube")).unwrap();
                if self.once_in(2) {
                    case.env.push(("KUBECONFIG", String::new()));
                }
                if self.once_in(3) {
                    case.flags.extend(["--kubeconfig".to_owned(), String::new()]);
                }
            }
            4 => case.env.push(("KUBECONFIG", self.one(&["/nonexistent/config", ":", "dir0"]).to_owned())),
            _ => {
                let at = self.random.random_range(0..=paths.len());
                match self.random.random_range(0..5) {
                    0 => paths.insert(at, "/nonexistent/config".to_owned()),
                    1 => paths.insert(at, String::new()),
                    2 => paths.push(paths[0].clone()),
                    3 => names.clone_into(&mut paths),
                    _ => {}
                }
                case.env.push(("KUBECONFIG", paths.join(":")));
            }
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn flags(&mut self, case: &mut Case) {
        let absolute = self.folder.path().join("ca.pem").display().to_string();
        let alice = |name: &str| self.folder.path().join(format!("dir2/{name}")).display().to_string();
        let (certificate, key) = (alice("alice.pem"), alice("alice.key"));
        let urls = self.world.urls.clone();
        let mut more: Vec<Vec<String>> = Vec::new();
        let texts = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (times, choices) in [
            (
                5,
                [
                    texts(&["--context", "b"]),
                    texts(&["--context", "gone"]),
                    texts(&["--context", ""]),
                    texts(&["--context=c"]),
                ],
            ),
            (3, [texts(&["-n", "other"]), texts(&["--namespace="]), texts(&["-n", ""]), texts(&["--namespace=other"])]),
            (
                14,
                [
                    texts(&["--cluster", "a"]),
                    texts(&["--cluster", "gone"]),
                    texts(&["--cluster", ""]),
                    texts(&["--cluster=c"]),
                ],
            ),
            (14, [texts(&["--user", "b"]), texts(&["--user", "gone"]), texts(&["--user", ""]), texts(&["--user=c"])]),
            (
                14,
                [
                    texts(&["--token", "flag"]),
                    texts(&["--token="]),
                    texts(&["--token=flag"]),
                    texts(&["--token", "fl ag"]),
                ],
            ),
            (
                20,
                [
                    texts(&["--server", &urls[1]]),
                    texts(&["-s", &urls[0]]),
                    texts(&["--server="]),
                    texts(&["--server", &urls[2]]),
                ],
            ),
            (
                20,
                [
                    texts(&["--as", "dave"]),
                    texts(&["--as-group", "g"]),
                    texts(&["--as-uid", "u2"]),
                    texts(&["--as=dave", "--as-group=g", "--as-group=h", "--as-uid=u2"]),
                ],
            ),
            (
                20,
                [
                    texts(&["--insecure-skip-tls-verify"]),
                    texts(&["--insecure-skip-tls-verify=true"]),
                    texts(&["--insecure-skip-tls-verify=false"]),
                    texts(&["--insecure-skip-tls-verify=maybe"]),
                ],
            ),
            (
                20,
                [
                    texts(&["--certificate-authority", &absolute]),
                    texts(&["--certificate-authority", "gone"]),
                    texts(&["--certificate-authority", "ca.pem"]),
                    texts(&["--certificate-authority="]),
                ],
            ),
            (
                20,
                [
                    texts(&["--tls-server-name", "api.example"]),
                    texts(&["--tls-server-name", "other.example"]),
                    texts(&["--tls-server-name="]),
                    texts(&["--tls-server-name=127.0.0.1"]),
                ],
            ),
            (
                20,
                [
                    texts(&["--request-timeout", "20"]),
                    texts(&["--request-timeout", "1m"]),
                    texts(&["--request-timeout=0"]),
                    texts(&["--request-timeout=soon"]),
                ],
            ),
            (
                30,
                [
                    texts(&["--client-certificate", &certificate, "--client-key", &key]),
                    texts(&["--client-certificate", &certificate]),
                    texts(&["--client-key", &key]),
                    texts(&["--client-certificate", "gone", "--client-key", &key]),
                ],
            ),
        ] {
            if self.once_in(times) {
                let choice = self.random.random_range(0..choices.len());
                more.push(choices[choice].clone());
            }
        }
        case.flags.extend(more.into_iter().flatten());
    }
}
