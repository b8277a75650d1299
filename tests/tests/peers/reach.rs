//! Echo requests.

use crate::fixture::{FAMILIES, command, on_lan};

#[test]
fn the_kernel_pings_the_node() {
    on_lan(|lan| {
        let _node = lan.node();
        for (node, _) in FAMILIES {
            // The smallest, the usual and the largest that needs no fragments.
            let largest = if node.is_ipv4() { 1472 } else { 1452 };
            for size in [0, 56, largest] {
                let words = format!("-n -c 5 -i 0.05 -W 5 -s {size} {node}");
                let said = lan.kernel.run(|| command("ping", &words, "apt-get install iputils-ping"));
                assert!(said.contains("5 received, 0% packet loss"), "{said}");
            }
        }
    });
}

#[test]
fn nobody_answers_for_others() {
    on_lan(|lan| {
        let _node = lan.node();
        for other in ["10.0.0.77", "fd00::77"] {
            let run = || {
                let ping =
                    std::process::Command::new("ping").args(["-n", "-c", "1", "-W", "1", other]).output();
                ping.expect("ping (apt-get install iputils-ping)").status.code()
            };
            assert_eq!(lan.kernel.run(run), Some(1), "{other}");
        }
    });
}
