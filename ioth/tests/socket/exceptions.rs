//! What sockets of a node process do not do as others: a closed list, with the reasons. docs/run.md tells programs.

/// Why, and which tests of this file's neighbours it concerns.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "the pair takes over what arrives and what is to be sent: the stack's buffers are not all that there is",
        &[
            "buffers::unset",
            "buffers::low_water_makes_room",
            "buffers::a_window_follows_its_buffer",
            "buffers::a_small_window_becomes_larger",
            "buffers::what_may_be_sent_ahead",
            "buffers::what_was_not_sent",
            "tcp_options::receive_buffer_bounds_the_window",
            "tcp_options::info_counts",
            "packet::statistics",
        ],
    ),
    (
        "a stream's pair polls readable below SO_RCVLOWAT, which is the end's own",
        &["tcp_options::low_water", "tcp_options::inherited"],
    ),
    (
        "two connections of a listener are in its pair already, of which only the first is told by an edge",
        &[
            "listen::backlog_of_nothing",
            "listen::shut_down",
            "listen::shut_down_and_opened_again",
            "tcp_options::info_by_state",
            "poll::edges_of_what_comes_on_top",
        ],
    ),
    (
        "an error with nothing unread polls as the end of the data, or not at all",
        &[
            "poll::reset",
            "poll::refused",
            "stream::in_progress_refused",
            "tcp_states::outcome_is_told_once",
            "tcp_states::data_for_both_ways_shut_is_a_reset",
            "tcp_states::the_end_comes_before_the_error",
            "mmsg::later_errors",
        ],
    ),
    (
        "the error of a datagram is in the pair, for the next call that receives",
        &[
            "datagram::errors_in_order",
            "errors::kept",
            "errors::pending",
            "poll::datagram_error",
            "packet::interface_down",
        ],
    ),
    (
        "what goes through the pair fails later: it is too long for the path, or the socket was shut down since",
        &[
            "cork::connected_meanwhile",
            "header_options::source_routes",
            "ip_options::discovery",
            "ip_options::dont_fragment",
        ],
    ),
    (
        "the pair is shut down for reading as AF_UNIX is: what comes is not received any more",
        &["datagram::shut_down", "tcp_states::shut_for_reading_still_takes_data"],
    ),
    (
        "shut down without a peer, it is shut for reading only as far as the pair goes",
        &["datagram::shut_down_unconnected", "raw::shut_down_unconnected", "ping::shut_down_unconnected"],
    ),
    (
        "a stream's flags and control messages are those of AF_UNIX",
        &[
            "stream::fast_open",
            "control::with_streams",
            "control::time_stamps_of_streams",
            "control::time_stamps_are_inherited",
        ],
    ),
    (
        "when a datagram came is not in the pair, but with the datagram that SO_TIMESTAMP asked for",
        &["control::time_of_the_last_datagram"],
    ),
    (
        "connect(2) with AF_UNSPEC does not undo a connection or a listener",
        &[
            "tcp_states::disconnected",
            "tcp_states::disconnected_listener",
            "tcp_states::bound_port_survives_disconnecting",
            "scopes::dissolved",
        ],
    ),
    (
        "close(2) waits neither for SO_LINGER nor until the node has seen it",
        &["tcp_options::close_waits_for_delivery", "listen::a_shared_port_is_left_to_the_others"],
    ),
    ("MSG_PEEK with MSG_WAITALL does not wait on AF_UNIX", &["tcp_states::peek_waits_for_all"]),
    (
        "flags that sockets below UDP refuse mean nothing to the pair",
        &[
            "packet::calls_that_are_not",
            "raw::calls_that_are_not",
            "ping::only_requests",
            "ping::there_and_back",
        ],
    ),
    ("between two processes, what was sent is not there yet when the call returns", &["raw::unreachable"]),
];

/// Runs a test that is not in the list.
///
/// Where tests are threads of one process (`cargo test`; nextest gives each its own) one that fails is tried again, for another may
/// have started its nodes at the same time: a process that begins has duplicates of all descriptors until its execve(2), by which what a
/// test has closed lives on for a moment.
pub(crate) fn unless_excepted(name: &str, test: fn()) {
    let name =
        name.split_once("::").filter(|(first, _)| first.starts_with("node_")).map_or(name, |(_, name)| name);
    if let Some((reason, _)) = EXCEPTIONS.iter().find(|(_, tests)| tests.contains(&name)) {
        println!("{name}: {reason}");
        return;
    }
    // Here, for it takes a while where there is something to build, and the test's time is bounded.
    crate::command::built();
    let is_alone = std::env::var_os("NEXTEST_EXECUTION_MODE").is_some_and(|mode| mode == "process-per-test");
    let tries = if is_alone { 1 } else { 3 };
    if (1..tries).all(|_| std::panic::catch_unwind(test).is_err()) {
        test();
    }
}

#[test]
fn each_is_a_test_and_there_once() {
    let mut listed: Vec<_> = EXCEPTIONS.iter().flat_map(|(_, tests)| tests.iter().copied()).collect();
    let count = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), count);
    listed.retain(|name| !crate::ON_EVERY_PAIR.contains(name) && !crate::ON_EVERY_NET.contains(name));
    assert!(listed.is_empty(), "no tests: {listed:?}");
}
