//! The library under programs written in C, on a node made for the tests.

mod names;
mod node;
#[path = "../../../ioth-core/tests/support/place.rs"]
mod place;
mod support;
mod sys;

use ioth_node_proto::Op;

use node::Node;
use support::{program, run};

fn case(name: &str, case: &str) -> std::sync::Arc<Node> {
    let node = Node::new();
    run(Some(&node), &program(name), &[case]);
    assert!(node.asked(Op::Socket) > 0, "the host's sockets were used");
    node
}

#[test]
fn a_server_and_its_client() {
    case("tcp", "talk");
}

#[test]
fn a_listener_that_does_not_wait() {
    case("tcp", "nonblocking");
}

#[test]
fn connections_that_fail() {
    case("tcp", "refused");
}

#[test]
fn connections_that_are_not_waited_for() {
    case("tcp", "impatient");
}

#[test]
fn states_that_move_no_data() {
    case("tcp", "states");
}

#[test]
fn options_of_streams() {
    case("tcp", "options");
}

#[test]
fn servers_fork_and_exec() {
    case("tcp", "fork");
}

#[test]
fn workers_share_a_listener() {
    case("tcp", "workers");
}

#[test]
fn signals_and_threads_come_between() {
    case("tcp", "signals");
}

#[test]
fn descriptors_that_run_out() {
    case("tcp", "descriptors");
}

#[test]
fn wrong_pointers() {
    case("tcp", "pointers");
}

#[test]
fn datagrams() {
    let node = case("udp", "talk");
    // One for the first to each destination, the others by the pair.
    assert!(node.asked(Op::Send) < 20, "{}", node.asked(Op::Send));
}

#[test]
fn connected_datagrams() {
    case("udp", "connected");
}

#[test]
fn ancillary_data() {
    case("udp", "ancillary");
}

#[test]
fn refused_datagrams() {
    case("udp", "refused");
}

#[test]
fn many_messages_at_once() {
    case("udp", "many");
}

#[test]
fn names_and_addresses() {
    let node = Node::new();
    for case in ["addresses", "info", "hosts", "interfaces", "resolver"] {
        run(Some(&node), &program("names"), &[case]);
    }
    for op in
        [Op::Lookup, Op::NameInfo, Op::HostByName, Op::HostByAddr, Op::Interfaces, Op::Resolve, Op::Exchange]
    {
        assert!(node.asked(op) > 0, "{op:?}");
    }
}

#[test]
fn without_a_node_nothing_changes() {
    for name in ["talk", "options", "fork", "workers", "signals"] {
        run(None, &program("tcp"), &[name]);
    }
    run(None, &program("udp"), &["talk"]);
    run(None, &program("names"), &["native"]);
}
