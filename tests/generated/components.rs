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

/// Every component, in the order of their names.
pub(crate) const COMPONENTS: [Component; 4] = [
    Component {
        name: "high-availability",
        set: |options| {
            options.replicas = HIGHLY_AVAILABLE_REPLICAS;
            options.spread = Spread::Required;
        },
    },
    Component { name: "monitoring", set: |options| options.monitoring = true },
    Component { name: "namespaced", set: |options| options.namespaces = vec![PLACEHOLDER.to_owned()] },
    Component { name: "openshift", set: |options| options.openshift = true },
];
