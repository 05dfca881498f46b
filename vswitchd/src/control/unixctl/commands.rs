//! The commands by name: what each takes, and who answers it.
//!
//! Not here: the answers.

use super::super::daemon::Control;
use super::general;
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

/// In alphabetical order. The log goes to stderr, so there is nothing to close or reopen; there are no bonds and
/// no spanning trees, and no cached flows that could be out of date.
const COMMANDS: &[Command] = &[
    command("bfd/show", "[interface]", (0, 1), |_, a| none(a, "no such bfd object")),
    command("bond/list", "", (0, 0), |_, _| Ok("bond\ttype\trecircID\tmembers\n".to_owned())),
    command("bond/show", "[port]", (0, 1), |_, a| none(a, "no such bond")),
    command("bridge/dump-flows", "[--offload-stats] bridge", (1, 2), |c, a| c.bridge_dump_flows(a)),
    command("cfm/show", "[interface]", (0, 1), |_, a| none(a, "no such CFM object")),
    command("coverage/read-counter", "COUNTER", (1, 1), |c, a| c.coverage_read(a)),
    command("coverage/show", "", (0, 0), |c, _| c.coverage_show()),
    command("dpif/dump-dps", "", (0, 0), |c, _| c.dump_dps()),
    command("dpif/dump-flows", "[-m] [--names | --no-names] bridge", (1, 3), |c, a| c.dpif_dump_flows(a)),
    command("dpif/show", "", (0, 0), |c, _| c.dpif_show()),
    command("exit", "[--cleanup]", (0, 1), |_, _| Ok(String::new())),
    command("fdb/add", "bridge port vlan mac", (4, 4), |c, a| c.fdb_add(a)),
    command("fdb/del", "bridge vlan mac", (3, 3), |c, a| c.fdb_del(a)),
    command("fdb/flush", "[bridge]", (0, 1), |c, a| c.fdb_flush(a)),
    command("fdb/show", "bridge", (1, 1), |c, a| c.fdb_show(a)),
    command("fdb/stats-clear", "[bridge]", (0, 1), |c, a| c.fdb_stats_clear(a)),
    command("fdb/stats-show", "bridge", (1, 1), |c, a| c.fdb_stats_show(a)),
    command("lacp/show", "[port]", (0, 1), |_, a| none(a, "no such lacp object")),
    command("list-commands", "", (0, 0), |_, _| Ok(list())),
    command("mdb/flush", "[bridge]", (0, 1), |c, a| c.mdb_flush(a)),
    command("mdb/show", "bridge", (1, 1), |c, a| c.mdb_show(a)),
    command("memory/show", "", (0, 0), |c, _| c.memory_show()),
    command("ofproto/list", "", (0, 0), |c, _| c.ofproto_list()),
    command("ofproto/list-tunnels", "", (0, 0), |c, _| c.list_tunnels()),
    command(
        "ofproto/trace",
        "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]",
        (1, usize::MAX),
        |c, a| c.ofproto_trace(a),
    ),
    command("qos/show", "interface", (1, 1), |c, a| c.qos_show(a)),
    command("qos/show-types", "interface", (1, 1), |c, a| c.qos_types(a)),
    command("revalidator/purge", "", (0, 0), |_, _| Ok(String::new())),
    command("revalidator/wait", "", (0, 0), |_, _| Ok(String::new())),
    command("rstp/show", "[bridge]", (0, 1), |_, a| none(a, "No such RSTP object")),
    command("stp/show", "[bridge]", (0, 1), |_, a| none(a, "no such stp object")),
    command("tnl/ports/show", "-v", (0, 1), |c, _| c.tunnel_ports()),
    command("upcall/show", "", (0, 0), |c, _| c.upcall_show()),
    command("version", "", (0, 0), |c, _| c.version()),
    command("vlog/close", "", (0, 0), |_, _| Ok(String::new())),
    command("vlog/list", "", (0, 0), |_, _| general::vlog_list()),
    command("vlog/list-pattern", "", (0, 0), |_, _| general::vlog_list_pattern()),
    command("vlog/reopen", "", (0, 0), |_, _| Ok(String::new())),
    command("vlog/set", "{spec | PATTERN:destination:pattern}", (0, usize::MAX), |_, a| general::vlog_set(a)),
];

const fn command(
    name: &'static str,
    usage: &'static str,
    takes: (usize, usize),
    run: fn(&mut Control, &[&str]) -> Answer,
) -> Command {
    Command { name, usage, takes, run }
}

/// Of what there is none: nothing to list, and whoever names one is told so.
fn none(arguments: &[&str], refusal: &str) -> Answer {
    if arguments.is_empty() { Ok(String::new()) } else { Err(refusal.to_owned()) }
}

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
            if arguments.contains(&"--cleanup") {
                self.give_up_kept();
            }
            return self.unixctl.exiting.push(reply);
        }
        reply.answer((command.run)(self, &arguments));
    }
}
