//! Integration tests: against a real kube-apiserver and etcd, never a mock of them.

#[path = "harness/lib.rs"]
mod harness;

/// What is tested; one module a subject.
mod integration {
    mod canary;
    mod command;
    mod corpus;
    mod facts;
    mod faults;
    mod harness;
    mod installation;
    mod keyring;
    mod lifecycle;
    mod logs;
    mod objects;
    mod operator;
    mod policies;
    mod program;
    mod rights;
    mod secret_api;
}
