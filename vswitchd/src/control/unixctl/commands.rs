//! The commands by name: what each takes, and who answers it.
//!
//! Not here: the answers.

use super::super::daemon::Control;
use super::serve::Request;
use std::fmt::Write as _;

/// What a command says: text, or an error's text.
pub(super) type Answer = Result<String, String>;

/// A command of ovs-appctl.
struct Command {
    name: &'static str,
    /// Its arguments, as list-commands shows them.
    usage: &'static str,
    /// The fewest and the most of them.
    takes: (usize, usize),
    run: fn(&mut Control, &[&str]) -> Answer,
}

/// In alphabetical order.
const COMMANDS: &[Command] = &[
    Command { name: "exit", usage: "[--cleanup]", takes: (0, 1), run: |_, _| Ok(String::new()) },
    Command { name: "list-commands", usage: "", takes: (0, 0), run: |_, _| Ok(list()) },
    Command { name: "version", usage: "", takes: (0, 0), run: |control, _| control.version() },
];

fn list() -> String {
    let mut text = "The available commands are:\n".to_owned();
    for command in COMMANDS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<23} {}", command.name, command.usage);
    }
    text
}

impl Control {
    /// Answers one command.
    pub(super) fn command(&mut self, request: Request) {
        let Request { method, params, reply } = request;
        let arguments: Vec<&str> = params.iter().map(String::as_str).collect();
        let Some(command) = COMMANDS.iter().find(|command| command.name == method) else {
            return reply.answer(Err(format!(
                "\"{method}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            )));
        };
        let (least, most) = command.takes;
        if arguments.len() < least {
            return reply.answer(Err(format!("\"{method}\" command requires at least {least} arguments")));
        }
        if arguments.len() > most {
            return reply.answer(Err(format!("\"{method}\" command takes at most {most} arguments")));
        }
        if method == "exit" {
            return self.unixctl.exiting.push(reply);
        }
        reply.answer((command.run)(self, &arguments));
    }
}
