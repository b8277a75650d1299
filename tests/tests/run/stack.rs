//! Programs that link the library, on nodes with a process of their own: how these live and end, and who shares them.

use std::io::IoSlice;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use ioth::{Domain, Errno, Events, MsgFlags, RecvMsg, SendMsg, SocketType, Stack};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::Place;
use crate::world::{World, built, in_world, wait_until};

/// Has this process's stacks use the command that was built.
fn use_built() {
    static USED: Once = Once::new();
    USED.call_once(|| ioth::register(ioth::node::NAME, ioth::node::factory_by(built().ioth.clone())));
}

/// `stack.c`, compiled and linked with the library for C.
fn program(world: &World) -> PathBuf {
    let place = Place::of_this_test();
    place.build(&["--package", "ioth-capi", "--lib"]);
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let program = world.path("stack");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here.join("../ioth-capi/include"));
    gcc.arg(here.join("tests/run/stack.c")).arg("-o").arg(&program).arg("-L").arg(&place.dir);
    // The library knows itself by the name that it is installed by.
    std::os::unix::fs::symlink(place.dir.join("libioth_c.so"), world.path("libioth.so.0")).unwrap();
    gcc.arg("-lioth_c").arg(format!("-Wl,-rpath,{}", world.path("").display()));
    let output = gcc.output().unwrap_or_else(|error| panic!("gcc: {error} (apt-get install gcc libc6-dev)"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

#[test]
fn a_node_ends_with_its_stack_and_its_last_socket() {
    use_built();
    in_world(|world| {
        let stack = Stack::new("stack=node").unwrap();
        world.wait_for_nodes(1);
        let socket = stack.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
        let (fd, other) = (socket.release_fd().unwrap(), Stack::new("stack=node").unwrap());
        world.wait_for_nodes(2);
        assert_eq!(stack.delete().unwrap_err().errno(), Errno::EBUSY);
        drop(other);
        world.wait_for_nodes(1);
        drop((stack, socket));
        assert_eq!(world.processes().len(), 1, "the socket keeps it");
        drop(fd);
        world.wait_for_nodes(0);
    });
}

#[test]
fn a_node_that_is_killed_hangs_nobody() {
    use_built();
    in_world(|world| {
        let stack = Stack::new("stack=node").unwrap();
        let udp = stack.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
        let listener = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 80)).into()).unwrap();
        listener.listen(1).unwrap();
        let client = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let receive = |socket: &dyn ioth::Socket| {
            socket.recv(&mut RecvMsg::new(&mut [std::io::IoSliceMut::new(&mut [0; 8])]), MsgFlags::empty())
        };
        std::thread::scope(|scope| {
            // Whether they wait already or not.
            let waiting = [&udp, &client].map(|socket| scope.spawn(move || receive(&**socket)));
            let accepting = scope.spawn(|| listener.accept().map(drop));
            let (node, _) = world.processes().pop_first().unwrap();
            kill(Pid::from_raw(node), Signal::SIGKILL).unwrap();
            let [datagram, stream] = waiting.map(|thread| thread.join().unwrap());
            assert_eq!((datagram, stream), (Err(Errno::ENETDOWN), Ok(0)));
            let accepted = accepting.join().unwrap();
            assert!([Err(Errno::ENETDOWN), Err(Errno::ECONNRESET)].contains(&accepted), "{accepted:?}");
        });
        let data = [IoSlice::new(b"x")];
        // A process that ends closes its descriptors one after the other.
        wait_until("end of the connection", || server.events().contains(Events::HUP));
        assert_eq!(server.send(&SendMsg::new(&data), MsgFlags::empty()), Err(Errno::EPIPE));
        assert_eq!(udp.local_addr(), Err(Errno::ENETDOWN));
        let made = stack.socket(Domain::INET, SocketType::DGRAM, 0);
        assert_eq!(made.err(), Some(Errno::ENETDOWN));
        assert_eq!(stack.if_nametoindex("lo").unwrap_err().errno(), Errno::ENETDOWN);
    });
}

#[test]
fn a_port_is_free_when_its_socket_was_closed() {
    use_built();
    in_world(|_| {
        let stack = Stack::new("stack=node").unwrap();
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 80)).into();
        for _ in 0..50 {
            let listener = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
            listener.bind(&addr).unwrap();
            listener.listen(1).unwrap();
        }
    });
}

#[test]
fn what_is_wrong_is_told() {
    use_built();
    in_world(|world| {
        let error = Stack::new("stack=node,vnl=vde:///nowhere/switch").unwrap_err();
        assert_ne!(error.errno(), Errno::EIO);
        assert!(error.to_string().contains("/nowhere/switch"), "{error}");
        let error = Stack::new("stack=node,vnl=vd://x").unwrap_err();
        assert_ne!(error.errno(), Errno::EIO);
        assert!(error.to_string().contains("unknown scheme \"vd\""), "{error}");
        let error = Stack::newstack("node,name=nobody", None).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
        assert!(error.to_string().contains("there is no node nobody"), "{error}");
        let missing = ioth::node::factory_by("/nowhere/ioth".into());
        let error = missing(&ioth::core::StackSpec::default()).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
        world.wait_for_nodes(0);
    });
}

/// A daemon in C, a shell that inherits a connection, and a program that knows nothing: on nodes of their own on a switch.
#[test]
fn a_daemon_and_an_executed_program_keep_their_sockets() {
    in_world(|world| {
        let (program, (vnl, _switch)) = (program(world), world.switch());
        let config = |end: u8| format!("stack=node,vnl={vnl},ip=10.0.0.{end}/24");
        let in_c = || world.plain(&program).env("IOTH_COMMAND", &built().ioth);
        in_c().args(["serve", &config(1), "7"]).finish().succeeded();
        world.wait_for_nodes(1);
        let said = in_c().args(["execute", &config(2), "10.0.0.1", "7"]).finish().succeeded().text();
        assert_eq!(said, "from a shell\n");
        let script =
            "import socket\ns = socket.create_connection(('10.0.0.1', 7))\ns.sendall(b'x')\nprint(s.recv(9))";
        let plain = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.3/24");
        let said = world.run_on(&plain, "/usr/bin/python3").args(["-c", script]).finish().succeeded().text();
        assert_eq!(said.trim_end(), "b'x'");
        world.wait_for_nodes(1);
        let daemon = world.processes().into_iter().find(|(_, name)| name == "stack").expect("the daemon");
        kill(Pid::from_raw(daemon.0), Signal::SIGKILL).unwrap();
        world.wait_for_nodes(0);
    });
}

/// One node with a name for a program in C, one in Rust, and one that knows nothing; its peer is elsewhere on the switch.
#[test]
fn a_node_with_a_name_is_shared() {
    in_world(|world| {
        let (program, (vnl, _switch)) = (program(world), world.switch());
        let place = Place::of_this_test();
        place.build(&["--package", "ioth-examples", "--bin", "send"]);
        let config = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.1/24");
        world.ioth(["node", "web", "--stack", &config]).finish().succeeded();
        let shared = "stack='node,name=web'";
        let in_c = || world.plain(&program).env("IOTH_COMMAND", &built().ioth);
        in_c().args(["serve", shared, "7"]).finish().succeeded();
        // In Rust, and over the node's own loopback.
        let send = world.plain(place.dir.join("send"));
        let said = send.args(["--stack", shared, "127.0.0.1:7", "in Rust"]).finish().succeeded().text();
        assert_eq!(said, "in Rust");
        let script = "import socket, sys\ns = socket.create_connection((sys.argv[1], 7))\ns.sendall(b'x')\nprint(s.recv(9))";
        let said = world.ioth(["run", "--node", "web", "--", "/usr/bin/python3", "-c", script, "10.0.0.1"]);
        assert_eq!(said.finish().succeeded().text().trim_end(), "b'x'");
        let peer = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.2/24");
        let said = world.run_on(&peer, "/usr/bin/python3").args(["-c", script, "10.0.0.1"]);
        assert_eq!(said.finish().succeeded().text().trim_end(), "b'x'");
        // Its name is taken away; it ends with the daemon, which is the last program that has joined.
        let stop = world.ioth(["node", "--stop", "web"]).start();
        wait_until("no name any more", || {
            world.ioth(["node", "--list"]).finish().succeeded().text().is_empty()
        });
        let daemon = world.processes().into_iter().find(|(_, name)| name == "stack").expect("the daemon");
        kill(Pid::from_raw(daemon.0), Signal::SIGKILL).unwrap();
        stop.finish().succeeded();
        world.wait_for_nodes(0);
    });
}
