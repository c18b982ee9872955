//! The command line as a whole.

use clap::CommandFactory;
use managed_secrets_cli::error::usage;

use super::*;
use crate::install::manifests::{HIGHLY_AVAILABLE_REPLICAS, KmsSocket, Options, Spread};

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_has_an_environment_variable_of_its_name() {
    let command = Cli::command();
    let mut flags = 0;
    for subcommand in command.get_subcommands() {
        for arg in subcommand.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            let flag = arg.get_long().expect("every argument is a flag");
            let variable = format!("MANAGED_SECRETS_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
            flags += 1;
        }
    }
    assert!(flags > 15);
}

#[test]
fn namespaces_may_be_repeated_and_separated() {
    let cli = Cli::try_parse_from(["managed-secrets", "run", "--namespace", "a", "--namespace=b,c"]).unwrap();
    let Command::Run(args) = cli.command else { panic!("not run") };
    assert_eq!(args.namespaces, ["a", "b", "c"]);
}

#[test]
fn manifests_without_flags_are_the_default_installation() {
    let options = |arguments: &[&str]| {
        let cli = Cli::try_parse_from([&["managed-secrets", "manifests"], arguments].concat()).unwrap();
        let Command::Manifests(args) = cli.command else { panic!("not manifests") };
        Options::from(args)
    };
    assert_eq!(options(&[]), Options::default());
    let available = options(&["--high-availability"]);
    assert_eq!((available.replicas, available.spread), (HIGHLY_AVAILABLE_REPLICAS, Spread::Required));
    assert_eq!(options(&["--high-availability", "--replicas", "5"]).replicas, 5);
    assert_eq!(options(&["--without-priority-class"]).priority_class, None);
    let both = ["managed-secrets", "manifests", "--priority-class=a", "--without-priority-class"];
    assert!(Cli::try_parse_from(both).is_err());
}

#[test]
fn the_first_plugin_encrypts_new_keys_unless_another_provider_is_chosen() {
    let primary = |arguments: &[&str]| {
        let cli = Cli::try_parse_from([&["managed-secrets", "run"], arguments].concat()).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        args.primary().map_err(|error| error.to_string())
    };
    let (a, b, file) = ("--kms=a=unix:///run/a/kms.sock", "--kms=b=unix:///run/b/kms.sock", "--kek-file=/run/kek");
    for (arguments, expected) in [
        (&[][..], Primary::Local),
        (&[file], Primary::File),
        (&[file, a, b], Primary::Kms),
        (&[file, a, "--kek-provider=file"], Primary::File),
        (&[file, a, "--kek-provider=local"], Primary::Local),
    ] {
        assert_eq!(primary(arguments), Ok(expected), "{arguments:?}");
    }
    assert!(primary(&["--kek-provider=kms"]).is_err_and(|said| said.contains("add --kms")));
    assert!(primary(&["--kek-provider=file", a]).is_err_and(|said| said.contains("add --kek-file")));
    assert!(primary(&[a, a]).is_err_and(|said| said.contains("twice")));
}

#[test]
fn the_folder_of_a_plugin_is_mounted_from_the_node() {
    let parse = |socket: &str| Cli::try_parse_from(["managed-secrets", "manifests", "--kms", socket]);
    let Command::Manifests(args) = parse("a=unix:///run/kms/a.sock").unwrap().command else { panic!("not manifests") };
    let folder = "/run/kms".to_owned();
    let expected = KmsSocket { name: "a".to_owned(), socket: "unix:///run/kms/a.sock".to_owned(), folder };
    assert_eq!(Options::from(args).kms, [expected]);
    assert!(parse("a=unix:///a.sock").is_err());
}

#[test]
fn the_leader_election_has_the_default_durations_of_the_engine() {
    let Command::Run(args) = Cli::try_parse_from(["managed-secrets", "run"]).unwrap().command else {
        panic!("not run")
    };
    assert_eq!(args.durations().unwrap(), Durations::default());
    assert!(!args.leader_elect);
}

#[test]
fn the_webhooks_can_be_switched_off() {
    assert_eq!("off".parse(), Ok(Listen(None)));
    assert_eq!("127.0.0.1:1".parse(), Ok(Listen(Some(SocketAddr::from(([127, 0, 0, 1], 1))))));
    assert!(DEFAULT_LISTEN.parse::<Listen>().is_ok_and(|listen| listen.0.is_some()));
    assert!("8443".parse::<Listen>().is_err());
}

fn usage_of(arguments: &[&str]) -> String {
    let error = Cli::try_parse_from([&["managed-secrets"], arguments].concat()).expect_err("must be refused");
    usage(&error).to_string()
}

#[test]
fn wrong_usage_is_one_line() {
    for arguments in [
        vec!["run", "--worker", "8"],
        vec!["run", "--workers", "many"],
        vec!["run", "--workers", "0"],
        vec!["run", "--log-format", "xml"],
        vec!["sale"],
        vec![],
        vec!["seal", "--scope"],
    ] {
        let text = usage_of(&arguments);
        assert!(!text.contains('\n') && !text.is_empty() && !text.contains("Usage"), "{text}");
    }
    assert!(usage_of(&["run", "--worker", "8"]).contains("--workers"));
    assert!(usage_of(&["sale"]).contains("seal"));
    assert!(usage_of(&["run", "--log-format", "xml"]).contains("json"));
}

#[test]
fn a_value_given_as_an_argument_is_not_repeated() {
    for arguments in [
        vec!["seal", "hunter2"],
        vec!["seal", "--name", "db", "--namespace", "prod", "hunter2"],
        vec!["seal", "--value=hunter2"],
        vec!["seal", "--value", "hunter2"],
        vec!["seal", "--", "hunter2"],
        vec!["run", "hunter2"],
        vec!["run", "--workers", "hunter2"],
        vec!["run", "--log-format=hunter2"],
        vec!["seal", "--hunter2"],
        vec!["hunter2"],
    ] {
        assert!(!usage_of(&arguments).contains("hunter"), "{arguments:?}");
    }
}
