//! The stack as the registry makes it.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ioth_core::descriptor::Count;
use ioth_core::registry::{Factory, StackError};
use ioth_core::{Domain, Errno, Result, Socket, SocketType, Stack, StackSpec};
use ioth_node_calls::control::{self, Question};
use ioth_node_calls::{Client, calls};
use ioth_node_proto::{Op, Place};
use parking_lot::Mutex;

use crate::named::{self, Name};
use crate::socket::NodeSocket;
use crate::sys::{self, Mapping};
use crate::{find, start};

/// The name under which the backend is registered.
pub const NAME: &str = "node";

/// The option that names a node to join.
const NAME_OPTION: &str = "name=";

/// A node with a process of its own: started by this stack, or one with a name.
///
/// There is no engine, thread or descriptor of it in the program; its sockets are ends of pairs, which live on in
/// whatever process has them.
#[derive(Debug)]
pub struct NodeStack {
    client: Client,
    sockets: Count,
    /// `None` once the stack is deleted.
    lease: Mutex<Option<Lease>>,
}

/// What tells the node that it is wanted, until it is dropped in each process that has it. exec(2) drops it as well.
#[derive(Debug)]
enum Lease {
    /// No descriptor, which the program might close.
    Mapped { _mapping: Mapping },
    /// Where the system has no means for the other.
    Pipe { _end: OwnedFd },
}

impl NodeStack {
    /// Starts a node process with an interface for each virtual network locator, or joins the node of the option
    /// `name=NAME`.
    ///
    /// # Errors
    /// What is wrong with which locator, as the node process says; that there is no command `ioth`; no node of that name.
    pub fn new(spec: &StackSpec) -> std::result::Result<Self, StackError> {
        NodeStack::by(spec, None)
    }

    fn by(spec: &StackSpec, command: Option<&Path>) -> std::result::Result<Self, StackError> {
        match named(&spec.options)? {
            None => match command {
                Some(command) => NodeStack::start(command, &spec.vnls),
                None => NodeStack::start(&find::command()?, &spec.vnls),
            },
            Some(name) if spec.vnls.is_empty() => NodeStack::join(&name),
            Some(name) => Err(StackError::Os {
                what: format!("the node {name} has its interfaces: a vnl is for a node that is made"),
                errno: Errno::EINVAL,
            }),
        }
    }

    /// Starts a node process of this stack's own, by the command `ioth` that is there.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn start(command: &Path, vnls: &[String]) -> std::result::Result<Self, StackError> {
        let served = start::start(command, &config(vnls)?, None, None)?;
        served.notes.lines().for_each(|line| eprintln!("ioth: node: {line}"));
        let lease = served.lease.ok_or_else(|| StackError::Os {
            what: "the node process has given no lease".to_owned(),
            errno: Errno::EPROTO,
        })?;
        Ok(NodeStack::with(served.place, lease))
    }

    /// Joins a node that `ioth node NAME` has made.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be reached from here.
    pub fn join(name: &Name) -> std::result::Result<Self, StackError> {
        let (place, lease) = named::join(name)?;
        Ok(NodeStack::with(place, lease))
    }

    fn with(place: Place, pipe: OwnedFd) -> Self {
        let client = Client::new(Some(place));
        let mapping = control::ask(&client, &Question::general(Op::Lease, [0; 4]))
            .ok()
            .and_then(|answer| Mapping::new(sys::owned(answer.fd?)).ok());
        // The pipe is dropped when the mapping is there, and not before.
        let lease = match mapping {
            Some(mapping) => Lease::Mapped { _mapping: mapping },
            None => Lease::Pipe { _end: pipe },
        };
        NodeStack { client, sockets: Count::default(), lease: Mutex::new(Some(lease)) }
    }
}

impl Stack for NodeStack {
    fn backend(&self) -> &str {
        NAME
    }

    fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<Arc<dyn Socket>> {
        let open = self.sockets.open()?;
        let made = calls::open(&self.client, domain.0, kind.0, protocol);
        let fd = sys::owned(made.map_err(|errno| Errno::from_raw(errno.0))?);
        Ok(Arc::new(NodeSocket::new(self.client, fd, open)?))
    }

    /// The node ends with the last of its sockets, in whatever process that is, and when nobody else wants it; this does
    /// not wait for that.
    fn delete(&self) -> Result<()> {
        self.sockets.delete()?;
        let lease = self.lease.lock().take();
        drop(lease);
        Ok(())
    }
}

/// Makes stacks for a [`Registry`](ioth_core::Registry), by the command that [`find`] finds.
pub fn factory() -> Factory {
    Arc::new(|spec| Ok(Arc::new(NodeStack::new(spec)?)))
}

/// The same by the command `ioth` that is there: for programs that bring their own.
pub fn factory_by(command: PathBuf) -> Factory {
    Arc::new(move |spec| Ok(Arc::new(NodeStack::by(spec, Some(&command))?)))
}

/// The node to join, if the options name one.
fn named(options: &str) -> std::result::Result<Option<Name>, StackError> {
    if options.is_empty() {
        return Ok(None);
    }
    let wrong = |what| StackError::Os { what, errno: Errno::EINVAL };
    let name = options
        .strip_prefix(NAME_OPTION)
        .ok_or_else(|| wrong(format!("node has the option {NAME_OPTION}NAME, not \"{options}\"")))?;
    name.parse().map(Some).map_err(wrong)
}

/// The configuration string of a node with these interfaces.
fn config(vnls: &[String]) -> std::result::Result<String, StackError> {
    let mut config = "stack=smoltcp".to_owned();
    for vnl in vnls {
        if vnl.contains('\0') {
            let message = format!("vnl: there is a NUL in {vnl:?}");
            return Err(StackError::Link { message, errno: Errno::EINVAL });
        }
        // The configuration's own quotes take everything but themselves.
        let _ = write!(config, ",vnl='{}'", vnl.replace('\'', r"'\''"));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_a_node() {
        assert_eq!(named("").unwrap(), None);
        assert_eq!(named("name=web").unwrap(), Some("web".parse().unwrap()));
        for (wrong, hint) in
            [("web", "name=NAME"), ("name=", "letter"), ("name=a/b", "letter"), ("name=a,b", "letter")]
        {
            let error = named(wrong).unwrap_err();
            assert_eq!(error.errno(), Errno::EINVAL);
            assert!(error.to_string().contains(hint), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_named_node_has_its_interfaces() {
        let spec = StackSpec { options: "name=web".to_owned(), vnls: vec!["vde://".to_owned()] };
        let error = NodeStack::new(&spec).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().contains("web has its interfaces"), "{error}");
    }

    #[test]
    fn locators_are_quoted() {
        let config = |vnls: &[&str]| config(&vnls.iter().map(|vnl| (*vnl).to_owned()).collect::<Vec<_>>());
        assert_eq!(config(&[]).unwrap(), "stack=smoltcp");
        assert_eq!(
            config(&["vde:///tmp/sw", "eth1:cmd://it's a, b"]).unwrap(),
            r"stack=smoltcp,vnl='vde:///tmp/sw',vnl='eth1:cmd://it'\''s a, b'"
        );
        assert_eq!(config(&["a\0b"]).unwrap_err().errno(), Errno::EINVAL);
    }
}
