//! The kustomize components of `deploy/components`, each as the options that it stands for.

use managed_secrets::install::manifests::{HIGHLY_AVAILABLE_REPLICAS, Options, Spread};

/// A component: the difference that some options make to the default installation.
pub(crate) struct Component {
    /// Name of its folder.
    pub(crate) name: &'static str,
    /// Sets the options that it stands for.
    pub(crate) set: fn(&mut Options),
}

/// The name that stands for the served namespace in the files of the component `namespaced`.
pub(crate) const PLACEHOLDER: &str = "SERVED-NAMESPACE";

/// Every component, in the order in which a kustomization must list them: each one also changes what those before it have
/// added.
pub(crate) const COMPONENTS: [Component; 7] = [
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
    Component { name: "namespaced", set: |options| options.namespaces = vec![PLACEHOLDER.to_owned()] },
    Component { name: "restarts", set: |options| options.restarts = true },
];
