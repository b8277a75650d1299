//! Which stack a `struct ioth *` is.
//!
//! The pointers point nowhere: they are numbers, each given once. So a pointer to a deleted stack, or any other
//! number, is found to be wrong and never taken for another stack. A forked child knows its parent's; what it may do
//! with them is for the stacks to say.

use std::collections::HashMap;

use ioth::core::fork::Inherited;
use ioth::{Errno, Stack};

use crate::names::Names;
use crate::outcome::Result;

/// The value of a `struct ioth *`; 0 (NULL) is the default stack.
pub(crate) type Handle = usize;

/// The stacks that the program holds.
#[derive(Debug)]
struct Nodes {
    nodes: HashMap<Handle, Node>,
    /// The last that was given.
    last: Handle,
    /// The process's default; 0 is the kernel's stack.
    default: Handle,
    /// The names of the kernel's stack where it is the default one, and nobody made it.
    native: Names,
}

#[derive(Debug)]
struct Node {
    stack: Stack,
    /// What `ioth_config` has told of names.
    names: Names,
}

static NODES: Inherited<Nodes> = Inherited::new(|| Nodes::new(0), || Nodes::new(LOST));

/// The default of a child that could not learn its parent's: a stack that is no more.
const LOST: Handle = usize::MAX;

/// Handles are aligned as pointers to structures are, which some programs rely on to keep bits in them.
const STEP: usize = 16;

impl Nodes {
    fn new(default: Handle) -> Self {
        Nodes { nodes: HashMap::new(), last: 0, default, native: Names::default() }
    }

    /// The default stack's handle; 0 is the kernel's.
    fn default(&self) -> Result<Handle> {
        match self.default {
            default if default == 0 || self.nodes.contains_key(&default) => Ok(default),
            _ => Err(Errno::ENODEV.into()),
        }
    }

    /// The names of a stack; `None` when it is no more.
    fn names(&mut self, handle: Handle) -> Option<&mut Names> {
        let handle = if handle == 0 { self.default().ok()? } else { handle };
        match handle {
            0 => Some(&mut self.native),
            handle => self.nodes.get_mut(&handle).map(|node| &mut node.names),
        }
    }
}

/// Makes a stack known.
pub(crate) fn add(stack: Stack, names: Names) -> Handle {
    crate::sys::register_exit();
    let mut nodes = NODES.write();
    nodes.last += STEP;
    let handle = nodes.last;
    nodes.nodes.insert(handle, Node { stack, names });
    handle
}

/// The stack of a handle; that of 0 is the default one.
///
/// # Errors
/// `EINVAL` for what is not a stack, `ENODEV` when the default stack is no more.
pub(crate) fn find(handle: Handle) -> Result<Stack> {
    let nodes = NODES.read();
    let handle = if handle == 0 { nodes.default()? } else { handle };
    if handle == 0 {
        drop(nodes);
        return Ok(ioth::get_defstack()?);
    }
    Ok(nodes.nodes.get(&handle).map(|node| node.stack.clone()).ok_or(Errno::EINVAL)?)
}

/// All stacks.
pub(crate) fn all() -> Vec<Stack> {
    NODES.read().nodes.values().map(|node| node.stack.clone()).collect()
}

/// Calls `with` with a copy of the names of a stack (0: the default one), and keeps what it leaves there. Of what others
/// change at the same time one counts.
///
/// # Errors
/// What `with` gives, as [`find`].
pub(crate) fn with_names<T>(handle: Handle, with: impl FnOnce(&Stack, &mut Names) -> Result<T>) -> Result<T> {
    let stack = find(handle)?;
    // The lock is held for a moment only: `with` may ask the stack.
    let mut names = NODES.write().names(handle).ok_or(Errno::EINVAL)?.clone();
    let value = with(&stack, &mut names)?;
    if let Some(there) = NODES.write().names(handle) {
        *there = names;
    }
    Ok(value)
}

/// Deletes a stack.
///
/// # Errors
/// `EINVAL` for what is not a stack, NULL among it; `EBUSY` while any of its sockets is open.
pub(crate) fn delete(handle: Handle) -> Result<()> {
    let stack = NODES.read().nodes.get(&handle).map(|node| node.stack.clone()).ok_or(Errno::EINVAL)?;
    // It may wait for what was sent last: not with the lock held.
    stack.delete()?;
    let removed = NODES.write().nodes.remove(&handle);
    // Of two threads that delete a stack at the same time, one is late.
    removed.ok_or(Errno::EINVAL)?;
    Ok(())
}

/// Makes a stack the process's default; 0 is the kernel's.
///
/// # Errors
/// `EINVAL` for what is not a stack; the default stays as it was.
pub(crate) fn set_default(handle: Handle) -> Result<()> {
    let stack = match handle {
        0 => None,
        handle => Some(find(handle)?),
    };
    let mut nodes = NODES.write();
    ioth::set_defstack(stack.as_ref());
    nodes.default = handle;
    Ok(())
}

/// The default stack's handle; 0 is the kernel's.
///
/// # Errors
/// `ENODEV` when the default stack was deleted.
pub(crate) fn default() -> Result<Handle> {
    NODES.read().default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    fn kernel() -> Stack {
        Stack::newstack("kernel", None).unwrap()
    }

    #[test]
    fn a_handle_is_never_another_stack() {
        let first = add(kernel(), Names::default());
        assert_eq!(find(first).unwrap().backend(), "kernel");
        delete(first).unwrap();
        let second = add(kernel(), Names::default());
        assert_ne!(first, second);
        for wrong in [first, second + 1, 1, usize::MAX] {
            assert_eq!(find(wrong).err(), Some(Failure(libc::EINVAL)), "{wrong:#x}");
            assert_eq!(delete(wrong), Err(Failure(libc::EINVAL)), "{wrong:#x}");
        }
        assert_eq!(delete(0), Err(Failure(libc::EINVAL)));
        delete(second).unwrap();
    }

    #[test]
    fn defaults() {
        assert_eq!(default(), Ok(0));
        let native = find(0).unwrap();
        let chosen = add(kernel(), Names::default());
        set_default(chosen).unwrap();
        assert_eq!(default(), Ok(chosen));
        assert!(find(0).unwrap() == find(chosen).unwrap() && find(0).unwrap() != native);
        assert_eq!(set_default(chosen + 1), Err(Failure(libc::EINVAL)));
        assert_eq!(default(), Ok(chosen));
        drop(native);
        delete(chosen).unwrap();
        assert_eq!(default(), Err(Failure(libc::ENODEV)));
        assert_eq!(find(0).err(), Some(Failure(libc::ENODEV)));
        assert_eq!(with_names(0, |_, _| Ok(())), Err(Failure(libc::ENODEV)));
        set_default(0).unwrap();
        assert_eq!(default(), Ok(0));
        assert_eq!(with_names(0, |_, names| names.changed(&kernel(), "")), Ok(None));
    }
}
