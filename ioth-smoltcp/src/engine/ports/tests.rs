use super::*;

fn binding(id: usize, addr: &str) -> Binding {
    Binding {
        id: SocketId(id),
        addr: addr.parse().unwrap(),
        dual: false,
        reuse_addr: false,
        reuse_port: false,
        device: None,
        listening: false,
        peer: None,
        order: 0,
    }
}

#[test]
fn who_excludes_whom() {
    let dual = |id| Binding { dual: true, ..binding(id, "::") };
    for (first, second, together) in [
        (binding(1, "0.0.0.0"), binding(2, "10.0.0.1"), false),
        (binding(1, "10.0.0.1"), binding(2, "10.0.0.2"), true),
        (binding(1, "10.0.0.1"), binding(2, "10.0.0.1"), false),
        (binding(1, "::"), binding(2, "0.0.0.0"), true),
        (dual(1), binding(2, "0.0.0.0"), false),
        (dual(1), binding(2, "10.0.0.1"), false),
        (binding(1, "10.0.0.1"), dual(2), false),
        (binding(1, "fd00::1"), dual(2), false),
    ] {
        let mut ports = Ports::new(1);
        assert!(ports.bind(Space::Tcp, 80, first));
        assert!(ports.bind(Space::Udp, 80, second), "another space");
        assert_eq!(ports.bind(Space::Tcp, 80, second), together, "{first:?} {second:?}");
        let reuse = |binding| Binding { reuse_addr: true, ..binding };
        let mut ports = Ports::new(1);
        assert!(ports.bind(Space::Tcp, 80, reuse(first)));
        assert!(ports.bind(Space::Tcp, 80, reuse(second)));
        assert!(ports.listen(80, SocketId(1)));
        assert_eq!(ports.listen(80, SocketId(2)), together);
    }
}

#[test]
fn ephemeral_ports_run_out() {
    let mut ports = Ports::new(1);
    let count = EPHEMERAL.count();
    let mut seen = std::collections::HashSet::new();
    for i in 0..count {
        assert!(seen.insert(ports.bind_ephemeral(Space::Udp, i as u32, binding(i, "0.0.0.0")).unwrap()));
    }
    assert_eq!(ports.bind_ephemeral(Space::Udp, 7, binding(count, "0.0.0.0")), None);
    let one = *seen.iter().next().unwrap();
    let owner = ports.bindings(Space::Udp, one).next().unwrap().id;
    ports.unbind(Space::Udp, one, owner);
    assert_eq!(ports.bind_ephemeral(Space::Udp, 7, binding(count, "0.0.0.0")), Some(one));
}

#[test]
fn connections_share_a_port_but_bind_may_not_have_it() {
    let mut ports = Ports::new(1);
    let port = ports.choose(5, 1, |_| true).unwrap();
    assert!(!ports.bind(Space::Tcp, port, binding(1, "0.0.0.0")));
    ports.release(port);
    assert!(ports.bind(Space::Tcp, port, binding(1, "0.0.0.0")));
}
