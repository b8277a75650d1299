//! Nodes of the backend `node`, and the command `ioth`, which they are.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use ioth::Stack;

use crate::fixture::{Family, Pair};

#[path = "../../../ioth-core/tests/support/place.rs"]
mod place;

/// Two nodes with a process each, on a switch of this process.
pub(crate) fn node(family: Family) -> Pair {
    static SWITCHES: AtomicU32 = AtomicU32::new(0);
    let number = SWITCHES.fetch_add(1, Ordering::Relaxed);
    let switch = std::env::temp_dir().join(format!("ioth-socket-test-{}-{number}", std::process::id()));
    let serves = ioth::vde::open(&format!("switch://{}", switch.display())).unwrap();
    let node = |host: &str| {
        let addr = match family {
            Family::V4 => format!("10.9.0.{host}/24"),
            Family::V6 => format!("fd09::{host}/64"),
        };
        let stack = Stack::new(&format!("stack=node,vnl=vde://{},eth,ip={addr}", switch.display())).unwrap();
        (stack, addr.split_once('/').unwrap().0.parse().unwrap())
    };
    let ((a, a_addr), (b, b_addr)) = (node("1"), node("2"));
    Pair { a, b, a_addr, b_addr, native: false, namespaces: None, _switch: Some(serves) }
}

/// Builds the command as the tests are, and has stacks use it.
pub(crate) fn built() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let place = place::Place::of_this_test();
        place.build(&["--package", "ioth-cli"]);
        ioth::register(ioth::node::NAME, ioth::node::factory_by(place.dir.join("ioth")));
    });
}
