//! Integration tests: against a real kube-apiserver and etcd, never a mock of them.

#[path = "harness/lib.rs"]
mod harness;

/// What is tested; one module a subject.
mod integration {
    mod borrowed_rights;
    mod corpus;
    mod costs;
    mod deletion;
    mod facts;
    mod harness;
    mod installation;
    mod keyring;
    mod lifecycle;
    mod names;
    mod objects;
    mod obstacles;
    mod operator;
    mod policies;
    mod rights;
    mod seal;
    mod secret_api;
    mod sources;
    mod target;
    mod witness;
}
