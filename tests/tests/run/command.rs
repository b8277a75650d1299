//! The command itself: exit status, signals, what cannot run, nodes with a name, and what is left.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, in_world, wait_until};

const SHELL: [&str; 4] = ["run", "--", "sh", "-c"];

fn node(world: &World) -> Pid {
    let nodes = world.processes();
    let nodes: Vec<_> = nodes.iter().filter(|(_, name)| name == "ioth-node").collect();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    Pid::from_raw(nodes[0].0)
}

#[test]
fn the_exit_status_is_the_programs() {
    in_world(|world| {
        for (words, status) in [
            (&["run", "true"][..], 0),
            (&["run", "--", "sh", "-c", "exit 42"], 42),
            (&["run", "/nowhere/program"], 127),
            (&["run", "no-such-program"], 127),
            (&["run", "/"], 126),
            (&["run"], 2),
            (&["run", "--stack", "stack=smoltcp", "--node", "a", "true"], 2),
            (&["run", "--stack", "stack=kernel", "true"], 1),
            (&["run", "--stack", "stack=smoltcp,vln=null://", "true"], 1),
            (&["run", "--stack", "stack=smoltcp,vnl=vde:///nowhere/switch", "true"], 1),
            (&["run", "--node", "nobody", "true"], 1),
        ] {
            let outcome = world.ioth(words).finish();
            assert_eq!(outcome.status.code(), Some(status), "{words:?}: {}", outcome.stderr);
            assert_eq!(outcome.stderr.is_empty(), [0, 42].contains(&status), "{words:?}: {}", outcome.stderr);
            if ![0, 2, 42].contains(&status) {
                assert_eq!(outcome.stderr.lines().count(), 1, "{words:?}: {}", outcome.stderr);
            }
        }
        let unreachable = ["run", "--stack", "stack=smoltcp,vnl=vde:///nowhere/switch", "true"];
        let said = world.ioth(unreachable).finish().stderr;
        assert!(said.starts_with("ioth: ") && said.contains("vde:///nowhere/switch"), "{said}");
    });
}

#[test]
fn signals_are_the_programs() {
    in_world(|world| {
        // It has the command's process: whoever started it may signal, stop and wait for it as if we were not there.
        let asleep = world.ioth(SHELL).args(["echo ready $$; exec sleep 1000"]).start();
        wait_until("word of the program", || asleep.output().contains("ready"));
        assert_eq!(asleep.output(), format!("ready {}\n", asleep.pid()));
        asleep.signal(Signal::SIGTERM);
        assert_eq!(asleep.finish().status.signal(), Some(libc::SIGTERM));

        let trapping = "trap 'echo once; exit 3' INT; echo ready; while :; do sleep 0.01; done";
        let trapped = world.ioth(SHELL).args([trapping]).start();
        wait_until("word of the program", || trapped.output().contains("ready"));
        trapped.signal(Signal::SIGINT);
        let outcome = trapped.finish();
        assert_eq!((outcome.text().as_str(), outcome.status.code()), ("ready\nonce\n", Some(3)));

        // What was ignored stays so, also SIGPIPE, which Rust's programs change; and nothing else is.
        let ask = ["-c", "grep SigIgn /proc/self/status"];
        let plain = world.plain("sh").args(ask).finish().succeeded().text();
        assert_eq!(world.ioth(["run", "sh"]).args(ask).finish().succeeded().text(), plain);
        let ioth = crate::world::built().ioth.display().to_string();
        let ignoring = format!("trap '' PIPE USR1; {ioth} run grep SigIgn /proc/self/status");
        let ignored = world.plain("sh").args(["-c", &ignoring]).finish().succeeded().text();
        let mask = u64::from_str_radix(ignored.trim().trim_start_matches("SigIgn:").trim(), 16).unwrap();
        let bit = |signal: i32| 1 << (signal - 1);
        assert_eq!(mask & (bit(libc::SIGPIPE) | bit(libc::SIGUSR1)), bit(libc::SIGPIPE) | bit(libc::SIGUSR1));
    });
}

#[test]
fn what_cannot_run_is_told_before_it_starts() {
    in_world(|world| {
        let source = world.file("static.c", "int main(void) { return 0; }\n");
        let program = world.path("static");
        let gcc = world.plain("gcc").args(["-static", "-o"]).arg(&program).arg(&source);
        gcc.finish().succeeded();
        let script = world.file("script", format!("#!{}\n", program.display()));
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        for path in [&program, &script] {
            let refused = world.ioth(["run"]).arg(path).finish();
            assert_eq!(refused.status.code(), Some(126));
            assert_eq!(refused.stderr.lines().count(), 1);
            assert!(refused.stderr.contains("statically linked"), "{}", refused.stderr);
        }
        let missing = world.ioth(["run", "true"]).env("IOTH_PRELOAD", world.path("none.so")).finish();
        assert_eq!(missing.status.code(), Some(1));
        assert!(missing.stderr.contains("none.so"), "{}", missing.stderr);
    });
}

#[test]
fn the_program_inherits_what_it_needs_and_nothing_else() {
    in_world(|world| {
        let list = "ls -l /proc/self/fd; echo $LD_PRELOAD";
        let plain = world.plain("sh").args(["-c", list]).finish().succeeded();
        let under = world.ioth(SHELL).args([list]).env("LD_PRELOAD", "libc.so.6").finish().succeeded();
        // The lease alone is more.
        assert_eq!(under.text().lines().count(), plain.text().lines().count() + 1, "{under:?}");
        let preloaded = format!("{}:libc.so.6", crate::world::built().preload.display());
        assert_eq!(under.text().lines().last(), Some(&*preloaded));
        world.wait_for_nodes(0);

        // Few descriptors.
        let few = "ulimit -n 20; exec \"$0\" run true";
        world.plain("sh").args(["-c", few]).arg(&crate::world::built().ioth).finish().succeeded();
    });
}

#[test]
fn the_node_lives_as_long_as_the_last_program() {
    in_world(|world| {
        // A grandchild without descriptors of its session, as a daemon; who reads the output waits for neither.
        let program = "setsid sh -c 'echo $$ >child; exec sleep 1000' </dev/null >/dev/null 2>&1 &";
        world.ioth(SHELL).args([program]).finish_and_read_to_the_end().succeeded();
        let child = || std::fs::read_to_string(world.path("child")).ok()?.trim().parse().ok();
        wait_until("the child's word", || child().is_some());
        world.wait_for_nodes(1);
        // Asked to end, it waits for its program.
        let node = node(world);
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            kill(node, signal).unwrap();
        }
        world.wait_for_nodes(1);
        kill(Pid::from_raw(child().unwrap()), Signal::SIGKILL).unwrap();
        world.wait_for_nodes(0);

        // A program goes on when its node is killed.
        let program = world.ioth(SHELL).args(["echo ready; exec sleep 1000"]).start();
        wait_until("word of the program", || program.output().contains("ready"));
        kill(self::node(world), Signal::SIGKILL).unwrap();
        world.wait_for_nodes(0);
        program.signal(Signal::SIGKILL);
        assert_eq!(program.finish().status.signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn nodes_with_a_name_are_shared() {
    in_world(|world| {
        let list = || world.ioth(["node", "--list"]).finish().succeeded().text();
        assert_eq!(list(), "");
        world.ioth(["node", "a", "--stack", "stack=smoltcp,vnl=null://,ip=10.0.0.1/24"]).finish().succeeded();
        world.ioth(["node", "b"]).finish().succeeded();
        assert_eq!(list(), "a\nb\n");
        let twice = world.ioth(["node", "a"]).finish();
        assert_eq!(twice.status.code(), Some(1));
        assert!(twice.stderr.contains("already"), "{}", twice.stderr);
        // They live without programs, and with any number of them.
        for _ in 0..3 {
            world.ioth(["run", "--node", "a", "true"]).finish().succeeded();
        }
        world.wait_for_nodes(2);

        // Stopped, a node has no name any more, and lives until its last program ends.
        let program =
            world.ioth(["run", "--node", "a", "--", "sh", "-c", "echo ready; exec sleep 1000"]).start();
        wait_until("word of the program", || program.output().contains("ready"));
        let stop = world.ioth(["node", "--stop", "a"]).start();
        wait_until("end of the name", || list() == "b\n");
        world.wait_for_nodes(2);
        assert_eq!(world.ioth(["run", "--node", "a", "true"]).finish().status.code(), Some(1));
        program.signal(Signal::SIGTERM);
        program.finish();
        stop.finish().succeeded();
        world.wait_for_nodes(1);

        // A killed node's name can be taken; its socket is in the way of nobody.
        kill(node(world), Signal::SIGKILL).unwrap();
        world.wait_for_nodes(0);
        assert_eq!(list(), "");
        assert_eq!(world.ioth(["run", "--node", "b", "true"]).finish().status.code(), Some(1));
        let foreground = world.ioth(["node", "--foreground", "b"]).start();
        wait_until("the node", || list() == "b\n");
        world.ioth(["run", "--node", "b", "true"]).finish().succeeded();
        foreground.signal(Signal::SIGTERM);
        foreground.finish().succeeded();
        assert_eq!(list(), "");
    });
}
