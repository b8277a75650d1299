//! What a socket does, on every stack: the kernel is the judge.
//!
//! Each test takes a [`fixture::Pair`] of nodes that reach each other, and runs once for each stack and family. A
//! test passes on the kernel's stack before it means anything for another one.

#[cfg(feature = "smoltcp")]
mod bpf;
mod buffers;
#[cfg(all(feature = "node", feature = "smoltcp"))]
mod command;
mod control;
mod cork;
mod datagram;
mod descriptor;
mod device;
mod errors;
#[cfg(all(feature = "node", feature = "smoltcp"))]
mod exceptions;
mod filter;
mod fixture;
#[cfg(feature = "smoltcp")]
mod forge;
#[cfg(feature = "smoltcp")]
mod header_options;
#[cfg(feature = "smoltcp")]
mod hostile;
mod ioctl;
#[cfg(feature = "smoltcp")]
mod ip_options;
mod listen;
mod mmsg;
#[cfg(feature = "smoltcp")]
mod multicast;
mod namespaces;
mod net;
#[cfg(feature = "smoltcp")]
mod netlink;
mod options;
#[cfg(feature = "smoltcp")]
mod packet;
#[cfg(feature = "smoltcp")]
mod ping;
mod poll;
mod ports;
#[cfg(feature = "smoltcp")]
mod raw;
#[cfg(feature = "smoltcp")]
mod scopes;
mod signals;
mod stream;
mod sys;
#[cfg(feature = "smoltcp")]
mod table;
mod tcp_options;
mod tcp_states;
mod timeouts;
mod transfer;
mod udplite;

/// One test for each function, fixture and family.
macro_rules! on_every_pair {
    (@ $name:ident: $fixture:path, $family:ident, $rights:expr; $($module:ident { $($test:ident)* })*) => {
        mod $name {
            $(mod $module {
                $(#[test]
                fn $test() {
                    use crate::fixture::{Family, bounded};
                    let test = || bounded(|| crate::$module::$test(&$fixture(Family::$family)));
                    let name = concat!(stringify!($name), "::", stringify!($module), "::", stringify!($test));
                    $rights(name, test)
                })*
            })*
        }
    };
    (@names $($module:ident { $($test:ident)* })*) => {
        &[$($(concat!(stringify!($module), "::", stringify!($test)),)*)*]
    };
    ($($tests:tt)*) => {
        on_every_pair! { @ kernel_ipv4: crate::fixture::kernel, V4, |_, test: fn()| test(); $($tests)* }
        on_every_pair! { @ kernel_ipv6: crate::fixture::kernel, V6, |_, test: fn()| test(); $($tests)* }
        on_every_pair! { @ vdestack_ipv4: crate::fixture::vdestack, V4, crate::namespaces::privileged; $($tests)* }
        on_every_pair! { @ vdestack_ipv6: crate::fixture::vdestack, V6, crate::namespaces::privileged; $($tests)* }
        #[cfg(feature = "smoltcp")]
        on_every_pair! { @ smoltcp_ipv4: crate::fixture::smoltcp, V4, |_, test: fn()| test(); $($tests)* }
        #[cfg(feature = "smoltcp")]
        on_every_pair! { @ smoltcp_ipv6: crate::fixture::smoltcp, V6, |_, test: fn()| test(); $($tests)* }
        #[cfg(all(feature = "node", feature = "smoltcp"))]
        on_every_pair! { @ node_ipv4: crate::command::node, V4, crate::exceptions::unless_excepted; $($tests)* }
        #[cfg(all(feature = "node", feature = "smoltcp"))]
        on_every_pair! { @ node_ipv6: crate::command::node, V6, crate::exceptions::unless_excepted; $($tests)* }
        #[cfg(all(feature = "node", feature = "smoltcp"))]
        pub(crate) const ON_EVERY_PAIR: &[&str] = on_every_pair! { @names $($tests)* };
    };
}

/// The same with two kernels on a wire as the judge, for what needs a right or a real link.
#[cfg(feature = "smoltcp")]
macro_rules! on_every_net {
    (@ $name:ident: $fixture:path, $family:ident, $rights:expr; $($module:ident { $($test:ident)* })*) => {
        mod $name {
            $(mod $module {
                $(#[test]
                fn $test() {
                    use crate::fixture::{Family, bounded};
                    let test = || bounded(|| crate::$module::$test(&$fixture(Family::$family)));
                    let name = concat!(stringify!($name), "::", stringify!($module), "::", stringify!($test));
                    $rights(name, test)
                })*
            })*
        }
    };
    ($($tests:tt)*) => {
        on_every_net! { @ kernel_net_ipv4: crate::namespaces::kernel_net, V4, crate::namespaces::privileged; $($tests)* }
        on_every_net! { @ kernel_net_ipv6: crate::namespaces::kernel_net, V6, crate::namespaces::privileged; $($tests)* }
        on_every_net! { @ vdestack_net_ipv4: crate::namespaces::vdestack_net, V4, crate::namespaces::privileged; $($tests)* }
        on_every_net! { @ vdestack_net_ipv6: crate::namespaces::vdestack_net, V6, crate::namespaces::privileged; $($tests)* }
        on_every_net! { @ smoltcp_net_ipv4: crate::fixture::smoltcp, V4, |_, test: fn()| test(); $($tests)* }
        on_every_net! { @ smoltcp_net_ipv6: crate::fixture::smoltcp, V6, |_, test: fn()| test(); $($tests)* }
        #[cfg(feature = "node")]
        on_every_net! { @ node_net_ipv4: crate::command::node, V4, crate::exceptions::unless_excepted; $($tests)* }
        #[cfg(feature = "node")]
        on_every_net! { @ node_net_ipv6: crate::command::node, V6, crate::exceptions::unless_excepted; $($tests)* }
        #[cfg(feature = "node")]
        pub(crate) const ON_EVERY_NET: &[&str] = on_every_pair! { @names $($tests)* };
    };
}

on_every_pair! {
    stream {
        echo half_close refused reset_by_unread_data reset_by_linger broken_pipe address_in_use port_free_after_close
        not_connected already_connected wrong_family would_block in_progress in_progress_refused
        nothing_to_send receive_timeout accept_timeout peek wait_all vectors names backlog_order unread_count
        families address_survives_refusal bound_to_many fast_open
    }
    datagram {
        echo connected_takes_nobody_else dissolved refused too_long zero_length truncated peek vectors
        no_destination would_block receive_timeout names address_in_use dissolved_names connected_sends_elsewhere shut_down
        shut_down_unconnected shutting_down_ends_a_wait
        errors_in_order broadcast families
    }
    errors { kept pending }
    control {
        nothing_unasked header_fields time_stamps truncated said_for_one_datagram source_and_interface bad_values bad_lengths
        dual_stack with_streams time_stamps_of_streams time_stamps_are_inherited time_of_the_last_datagram
    }
    cork { more option too_long connected_meanwhile }
    ports { families sharing best_fit balanced }
    poll {
        fresh listening connected peer_half_closed both_closed reset refused full edges
        edges_of_what_comes_on_top
        datagrams datagram_error
    }
    descriptor {
        duplicates_share status_flags_are_shared creation_flags accepted_flags native_duplicate native_close
        number_used_again busy_until_closed closed_is_bad replaced owner
    }
    mmsg {
        several_datagrams wait_for_one time_out later_errors sent_until_one_fails too_many nothing whole_streams
    }
    filter { of_datagrams attached_and_locked }
    options { types levels reuse buffers unknown }
    buffers {
        unset grow_with_their_use low_water_makes_room a_window_follows_its_buffer a_small_window_becomes_larger
        what_may_be_sent_ahead what_was_not_sent
    }
    tcp_options {
        congestion_control info_by_state info_counts segment_size cork more_to_come low_water receive_buffer_bounds_the_window
        inherited deferred_accept close_waits_for_delivery
    }
    tcp_states {
        connected_to_itself disconnected disconnected_listener bound_port_survives_disconnecting outcome_is_told_once
        shut_for_reading_still_takes_data data_for_both_ways_shut_is_a_reset the_end_comes_before_the_error
        truncation_discards peek_waits_for_all a_destination_is_ignored connections_keep_their_port
        a_reset_frees_the_port
    }
    listen {
        backlog_of_nothing another_backlog shut_down shut_down_and_opened_again shutting_down_ends_a_waiting_accept
        a_reset_one_is_accepted a_finished_one_is_accepted a_shared_port_is_balanced
        a_shared_port_is_left_to_the_others
    }
    timeouts { send_ends negative_does_not_wait the_longest_waits }
    signals { interrupt_what_waits restart_what_waits interrupt_what_has_a_time_out }
    transfer { both_ways blocking_write_takes_all many_connections }
    udplite { there_and_back ports coverage corked refused connected }
}

#[cfg(feature = "smoltcp")]
on_every_net! {
    ioctl { devices addresses aliases address_list routes ipv6_addresses ipv6_routes descriptors_own unknown packet_sockets }
    net { reach }
    device { streams datagrams }
    netlink { names dump link unknown }
    scopes { streams datagrams binding dissolved connected_to_a_group groups own_address own_stream }
    raw {
        echo_by_hand own_protocol bound_and_connected names creation calls_that_are_not send_errors header_included
        options checksums routing_headers unreachable beside_udp filters control_messages
        shut_down_unconnected said_of_a_datagram
    }
    ping { there_and_back only_requests identifiers dissolved many too_long shut_down_unconnected }
    packet {
        whole_frames without_header who_sees_what nodes_own_traffic loopback names calls_that_are_not send_errors
        interface_down peek_and_cut filter memberships statistics auxiliary_data options dhcp
    }
    udplite { on_the_wire groups }
    multicast { membership bounded delivery everybody looped_back hops link_local interface broadcast }
    hostile {
        resets syns acknowledgements data_elsewhere overlaps ends options segment_sizes selective_acknowledgements windows
        icmp_errors half_open opened_at_once closed_at_once storms urgent
    }
    header_options {
        set_and_told with_datagrams said_for_one_datagram with_streams source_routes wrong_ones_are_answered echoes
    }
    ip_options {
        path_mtu long_datagrams discovery dont_fragment free_bind sticky_source short_values
    }
}
