//! Integration tests: against a real kube-apiserver and etcd, never a mock of them.
#![allow(clippy::disallowed_methods, reason = "tests apply as other clients do")]

/// What is tested; one module a subject.
mod integration {
    mod admission;
    mod adoption;
    mod altering;
    mod borrowed_rights;
    mod callers;
    mod canary;
    mod chart;
    mod command;
    mod corpus;
    mod costs;
    mod crashes;
    mod credentials;
    mod deletion;
    mod drift;
    mod examples;
    mod expiry;
    mod facts;
    mod faults;
    mod harness;
    mod health;
    mod history;
    mod installation;
    mod keyring;
    mod kustomize;
    mod leaders;
    mod lifecycle;
    mod logs;
    mod lost_keys;
    mod memory;
    mod metrics;
    mod monitoring;
    mod msec;
    mod names;
    mod new_keys;
    mod objects;
    mod obstacles;
    mod operator;
    mod outages;
    mod policies;
    mod program;
    mod proxied;
    mod recordless;
    mod restarts;
    mod restored;
    mod rights;
    mod rings;
    mod rotation;
    mod seal;
    mod secret_api;
    mod secure_metrics;
    mod seeds;
    mod sources;
    mod starting;
    mod stories;
    mod tamper;
    mod target;
    mod template;
    mod unicode;
    mod unmanaged;
    mod upgrade;
    mod value_api;
    mod witness;
}
