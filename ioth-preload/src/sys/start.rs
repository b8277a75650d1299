//! What happens before main(): the place of the node is copied out of the environment.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use super::reading;
use ioth_node_calls::Client;
use ioth_node_calls::control::{self, Question};
use ioth_node_calls::sys::raw;
use ioth_node_proto::{ENV, Op, Place};

/// The node, whose place the environment had when the program began.
static CLIENT: OnceLock<Client> = OnceLock::new();

/// The program's node; one without a place for a program that has none.
///
/// Programs write over their environment (for ps(1) to show something else), so it is looked at once, before main().
/// Another library's constructor that comes earlier gets the same answer.
pub(crate) fn client() -> &'static Client {
    CLIENT.get_or_init(|| Client::new(from_environment()))
}

fn from_environment() -> Option<Place> {
    const NAME: &CStr = match CStr::from_bytes_with_nul(ENV_NUL.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("no NUL within"),
    };
    // std::env allocates and takes a lock.
    // SAFETY: a name with its NUL; nobody changes the environment before main(), or while it asks for its first socket.
    let text: *const c_char = unsafe { libc::getenv(NAME.as_ptr()) };
    if text.is_null() {
        return None;
    }
    // As above.
    // SAFETY: getenv(3) gives a string with its NUL.
    Place::parse(unsafe { CStr::from_ptr(text) }.to_bytes())
}

const ENV_NUL: &str = "IOTH_NODE\0";
const _: () = assert!(ENV.len() + 1 == ENV_NUL.len(), "the variable's name");

/// Run by the dynamic linker.
extern "C" fn constructor() {
    let errno = raw::errno();
    reading::prepare();
    if client().place().is_some() {
        take_lease();
    }
    raw::set_errno(errno);
}

/// Tells the node that there is a program, for as long as there is: by a mapping, which has no number to be closed, and
/// which forked children have as well. A node that has none to give knows its programs by other means.
fn take_lease() {
    let Ok(answer) = control::ask(client(), &Question::general(Op::Lease, [0; 4])) else { return };
    if let Some(lease) = answer.fd {
        raw::map_nothing(&lease);
    }
}

// Rust has no other way to say what is to be done before main().
// SAFETY: the linker expects pointers to functions in this section, and calls them once.
#[unsafe(link_section = ".init_array")]
#[used]
static CONSTRUCTOR: extern "C" fn() = constructor;
