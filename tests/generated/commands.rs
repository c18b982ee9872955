//! `docs/commands.md`: what each command says of itself with `--help`.

use std::fmt::Write;

use clap::CommandFactory;
use managed_secrets::args::Cli;

/// Width of the text, in characters: what both programs assume in a pipe.
const WIDTH: usize = 100;

/// Every command of both programs, with its help.
pub(super) fn commands() -> String {
    let mut page = String::from(
        "# Commands\n\nWhat `kubectl msec` and `managed-secrets` say with `--help`. The first is for people and pipelines, \
         the second is the operator and what installs it. \
         Flags under \"Cluster\" work with every command of `kubectl msec` and are shown once.\n",
    );
    for (program, command) in [("kubectl msec", kubectl_msec::Cli::command()), ("managed-secrets", Cli::command())] {
        let mut command = command.term_width(WIDTH);
        command.build();
        let _ = write!(page, "\n## {program}\n\n{}", help(&mut command));
        subcommands(&mut page, program, &mut command);
    }
    page
}

/// Each command below `command`, and what is below that.
fn subcommands(page: &mut String, path: &str, command: &mut clap::Command) {
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        // What every command takes is said once, with the program.
        let mut own = command.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        let path = format!("{path} {}", command.get_name());
        let _ = write!(page, "\n### {path}\n\n{}", help(&mut own));
        subcommands(page, &path, command);
    }
}

fn help(command: &mut clap::Command) -> String {
    let text = command.render_long_help().to_string();
    let lines: String = text.trim_end().lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    format!("```text\n{lines}```\n")
}
