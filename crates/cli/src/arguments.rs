//! Values of options that begin with `-`, read as kubectl reads them.
//!
//! kubectl's library (<https://github.com/spf13/pflag>, `flag.go`) takes the argument after an option for its value, even
//! if it begins with `-`. clap does so only for options that allow it: here, all do that need a value. There is one
//! exception: the name of another option is not taken for a value. Its own option has lost its value then, and the other
//! one would be lost in silence: after `--description --value-stdin`, the new value.

use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory};

/// The command line, with options that take values which begin with `-`.
#[must_use]
pub fn command<C: CommandFactory>() -> Command {
    with_any_values(C::command())
}

fn with_any_values(command: Command) -> Command {
    command
        .mut_args(|arg| if takes_next(&arg) { arg.allow_hyphen_values(true) } else { arg })
        .mut_subcommands(with_any_values)
}

/// Whether the next argument is the option's value.
#[must_use]
pub fn takes_next(arg: &Arg) -> bool {
    let needs_value = arg.get_num_args().is_none_or(|number| number.min_values() > 0);
    !arg.is_positional() && arg.get_action().takes_values() && needs_value && !arg.is_require_equals_set()
}

/// What is wrong if an option stands where the value of another one is expected. Nothing of the arguments is repeated.
pub(super) fn missing_value(command: &Command, arguments: &[OsString]) -> Option<String> {
    // Options of all commands are at each command only when it is built.
    let mut command = command.clone();
    command.build();
    let mut current = &command;
    let mut words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next().filter(|word| word != "--") {
        if !word.starts_with('-') {
            current = current.find_subcommand(&*word).unwrap_or(current);
        } else if let Some(option) = last_option(current, &word).filter(|arg| takes_next(arg))
            && let Some(other) = words.next().and_then(|next| named(current, &next))
        {
            let (option, other) = (name(option), name(other));
            return Some(format!(
                "{option} needs a value, and {other} is another option; a value may follow {option}="
            ));
        }
    }
    None
}

/// The option whose value can be the next argument: the word itself, or the last letter of it.
fn last_option<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    if let Some(long) = word.strip_prefix("--") {
        return long_option(command, long);
    }
    let mut letters = word.chars().skip(1).peekable();
    while let Some(letter) = letters.next() {
        let option = short_option(command, letter)?;
        if option.get_action().takes_values() || letters.peek().is_none() {
            // Behind a letter that takes a value, the word is the value.
            return letters.peek().is_none().then_some(option);
        }
    }
    None
}

/// The option that a word names, with a value behind `=` or without.
fn named<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    if let Some(long) = word.strip_prefix("--") {
        return long_option(command, long.split_once('=').map_or(long, |(name, _)| name));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let option = short_option(command, letters.next()?)?;
    letters.next().is_none().then_some(option)
}

fn long_option<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    let is_named = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    command.get_arguments().find(is_named)
}

fn short_option(command: &Command, letter: char) -> Option<&Arg> {
    command.get_arguments().find(|arg| arg.get_short() == Some(letter))
}

/// The option's own name, which is no part of the arguments.
fn name(option: &Arg) -> String {
    option.get_long().map_or_else(|| option.get_id().to_string(), |long| format!("--{long}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::{ArgAction, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[arg(short, long, global = true)]
        namespace: Option<String>,
        #[arg(short, long, action = ArgAction::SetTrue)]
        yes: bool,
        #[command(subcommand)]
        command: Sub,
    }

    #[derive(Debug, Parser)]
    enum Sub {
        Make {
            name: String,
            #[arg(short, long)]
            file: Vec<String>,
            #[arg(long, num_args = 0..=1, default_missing_value = "32")]
            length: Option<u8>,
        },
    }

    fn missing(words: &[&str]) -> Option<String> {
        let arguments: Vec<_> = std::iter::once("program").chain(words.iter().copied()).map(OsString::from).collect();
        missing_value(&command::<Program>(), &arguments)
    }

    #[test]
    fn an_option_in_the_place_of_a_value_is_found() {
        for words in [
            &["--namespace", "--yes", "make", "x"][..],
            &["-n", "-y", "make", "x"],
            &["-yn", "--yes", "make", "x"],
            &["make", "x", "--file", "--namespace"],
            &["make", "x", "--file", "--namespace=hunter2"],
            &["make", "x", "-n", "-f", "a"],
            &["make", "x", "-f", "a", "-f", "--help"],
        ] {
            let message = missing(words).unwrap();
            assert!(message.contains(" needs a value, and --") && !message.contains("hunter2"), "{message}");
        }
        for words in [
            &["-n", "-x", "make", "--", "-n", "-f"][..],
            &["-n-y", "make", "x", "-f-n"],
            &["--namespace=--yes", "make", "--length", "-n", "a"],
            &["make", "-f", "-", "x", "-n", "-abc"],
            // `--yes` is no option of this command.
            &["make", "x", "--file", "--yes"],
            &["make", "x", "--file"],
        ] {
            assert_eq!(missing(words), None, "{words:?}");
        }
    }
}
