//! The operator restarts workloads; a user who writes ManagedSecrets must not gain that permission.
//!
//! Each create, and each change of `target.restart`, asks the API server's authorizer whether the user may `patch` each
//! workload that was not named before. The policy holds also where the operator restarts nothing: it may be installed with
//! `--restarts` later.

use managed_secrets_api::{limits::RESTARTS_MAX, restarts::GROUP, types::WorkloadKind};

use super::{Options, Policy, Resource, Validation, concerned, keys, literal};

pub(super) fn policy(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_RESTART_RIGHTS,
        resource: Resource { group: keys::GROUP, name: "managedsecrets", operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![(
            "names-a-workload",
            "has(object.spec.target) && has(object.spec.target.restart)\n\
             && (oldObject == null || object.spec.target != oldObject.spec.?target.orValue({}))"
                .to_owned(),
        )],
        variables: vec![
            ("named", "dyn(object.spec.target.restart)".to_owned()),
            (
                "before",
                "oldObject == null ? dyn([]) : dyn(dyn(oldObject).spec.?target.?restart.orValue([]))".to_owned(),
            ),
        ],
        // One for each place in the list: the API server limits what one expression may ask of the authorizer.
        validations: (0..RESTARTS_MAX).map(validation).collect(),
    }
}

fn validation(at: usize) -> Validation {
    let workload = format!("variables.named[{at}]");
    let [first, second, third] = WorkloadKind::ALL.map(|kind| (literal(kind.as_str()), literal(kind.plural())));
    let resource = format!(
        "({workload}.kind == {} ? {} : {workload}.kind == {} ? {} : {})",
        first.0, first.1, second.0, second.1, third.1
    );
    Validation {
        admits: format!(
            "variables.named.size() <= {at} || {workload} in variables.before\n\
             || authorizer.group({}).resource({resource}).namespace(request.namespace).name({workload}.name)\
             .check('patch').allowed()",
            literal(GROUP)
        ),
        message: format!(
            "'user \"' + request.userInfo.username + '\" cannot patch resource \"' + {resource} + '\" in API group \
             \"{GROUP}\" named \"' + {workload}.name + '\" in the namespace \"' + request.namespace + '\", which is needed \
             to have it restarted (target.restart)'"
        ),
        fallback: "target.restart needs the permission to patch each workload",
    }
}
