//! The kustomize components of `deploy/components`, each as the options that it stands for.

use managed_secrets::install::manifests::{HIGHLY_AVAILABLE_REPLICAS, KmsSocket, Options, Spread};

/// A component: the difference that some options make to the default installation.
pub(crate) struct Component {
    /// Name of its folder.
    pub(crate) name: &'static str,
    /// Sets the options that it stands for.
    pub(crate) set: fn(&mut Options),
}

/// A text in the files of a component that stands for what a `ConfigMap` of the user's kustomization says.
#[derive(Debug)]
pub(crate) struct Placeholder {
    /// The text.
    pub(crate) text: &'static str,
    /// Name of the `ConfigMap`.
    pub(crate) config_map: &'static str,
    /// Its key.
    pub(crate) key: &'static str,
}

/// The served namespace, in the component `namespaced`.
pub(crate) const SERVED_NAMESPACE: Placeholder =
    Placeholder { text: "SERVED-NAMESPACE", config_map: "managed-secrets-served-namespace", key: "namespace" };
const KMS: &str = "managed-secrets-kms";
/// What the keyring calls the KMS plugin, in the component `kms`.
pub(crate) const KMS_NAME: Placeholder = Placeholder { text: "KMS_NAME", config_map: KMS, key: "name" };
/// The address of the plugin.
pub(crate) const KMS_SOCKET: Placeholder = Placeholder { text: "KMS_SOCKET", config_map: KMS, key: "socket" };
/// The folder of its socket.
pub(crate) const KMS_FOLDER: Placeholder = Placeholder { text: "KMS_FOLDER", config_map: KMS, key: "folder" };

/// Every component, in the order in which a kustomization must list them: each one also changes what those before it have
/// added.
pub(crate) const COMPONENTS: [Component; 8] = [
    Component {
        name: "high-availability",
        set: |options| {
            options.replicas = HIGHLY_AVAILABLE_REPLICAS;
            options.spread = Spread::Required;
        },
    },
    Component { name: "monitoring", set: |options| options.monitoring = true },
    Component { name: "openshift", set: |options| options.openshift = true },
    Component { name: "secure-metrics", set: |options| options.secure_metrics = true },
    Component { name: "value-api", set: |options| options.value_api = true },
    Component {
        name: "kms",
        set: |options| {
            options.kms = vec![KmsSocket {
                name: KMS_NAME.text.to_owned(),
                socket: KMS_SOCKET.text.to_owned(),
                folder: KMS_FOLDER.text.to_owned(),
            }];
        },
    },
    Component { name: "namespaced", set: |options| options.namespaces = vec![SERVED_NAMESPACE.text.to_owned()] },
    Component { name: "restarts", set: |options| options.restarts = true },
];
