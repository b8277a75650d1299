//! Which stack a `struct ioth *` is.
//!
//! The pointers point nowhere: they are numbers, each given once. So a pointer to a deleted stack, or any other
//! number, is found to be wrong and never taken for another stack.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use ioth::{Errno, Stack};
use parking_lot::{Mutex, RwLock};

use crate::names::Names;
use crate::outcome::Result;

/// A stack that a C program holds, and what `ioth_config` has told of names.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) stack: Stack,
    pub(crate) names: Mutex<Names>,
}

/// The value of a `struct ioth *`; 0 (NULL) is the default stack.
pub(crate) type Handle = usize;

static NODES: LazyLock<RwLock<HashMap<Handle, Arc<Node>>>> = LazyLock::new(RwLock::default);

/// The process's default; 0 is the kernel's stack.
static DEFAULT: AtomicUsize = AtomicUsize::new(0);

static NEXT: AtomicUsize = AtomicUsize::new(STEP);

/// Handles are aligned as pointers to structures are, which some programs rely on to keep bits in them.
const STEP: usize = 16;

/// Makes a stack known.
pub(crate) fn add(stack: Stack, names: Names) -> Handle {
    crate::sys::register_exit();
    let handle = NEXT.fetch_add(STEP, Ordering::Relaxed);
    NODES.write().insert(handle, Arc::new(Node { stack, names: Mutex::new(names) }));
    handle
}

/// The stack of a handle; that of 0 is the default one.
///
/// # Errors
/// `EINVAL` for what is not a stack, `ENODEV` when the default stack is no more.
pub(crate) fn find(handle: Handle) -> Result<Arc<Node>> {
    if handle == 0 {
        return default_node();
    }
    Ok(NODES.read().get(&handle).cloned().ok_or(Errno::EINVAL)?)
}

/// All stacks.
pub(crate) fn all() -> Vec<Arc<Node>> {
    NODES.read().values().cloned().collect()
}

/// Deletes a stack.
///
/// # Errors
/// `EINVAL` for what is not a stack, NULL among it; `EBUSY` while any of its sockets is open.
pub(crate) fn delete(handle: Handle) -> Result<()> {
    let node = NODES.read().get(&handle).cloned().ok_or(Errno::EINVAL)?;
    // It may wait for what was sent last: not with the lock held.
    node.stack.delete()?;
    // Of two threads that delete a stack at the same time, one is late.
    let removed = NODES.write().remove(&handle);
    removed.ok_or(Errno::EINVAL)?;
    Ok(())
}

/// Makes a stack the process's default; 0 is the kernel's.
///
/// # Errors
/// `EINVAL` for what is not a stack; the default stays as it was.
pub(crate) fn set_default(handle: Handle) -> Result<()> {
    match handle {
        0 => ioth::set_defstack(None),
        handle => ioth::set_defstack(Some(&find(handle)?.stack)),
    }
    DEFAULT.store(handle, Ordering::SeqCst);
    Ok(())
}

/// The default stack's handle; 0 is the kernel's.
///
/// # Errors
/// `ENODEV` when the default stack was deleted.
pub(crate) fn default() -> Result<Handle> {
    let handle = DEFAULT.load(Ordering::SeqCst);
    if handle != 0 && !NODES.read().contains_key(&handle) {
        return Err(Errno::ENODEV.into());
    }
    Ok(handle)
}

fn default_node() -> Result<Arc<Node>> {
    /// The kernel's stack has names as well.
    static NATIVE: LazyLock<Mutex<Option<Arc<Node>>>> = LazyLock::new(Mutex::default);

    let handle = default()?;
    if handle != 0 {
        return Ok(NODES.read().get(&handle).cloned().ok_or(Errno::ENODEV)?);
    }
    let stack = ioth::get_defstack()?;
    let mut native = NATIVE.lock();
    Ok(native.get_or_insert_with(|| Arc::new(Node { stack, names: Mutex::default() })).clone())
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
        assert_eq!(find(first).unwrap().stack.backend(), "kernel");
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
        assert!(Arc::ptr_eq(&native, &find(0).unwrap()));
        let chosen = add(kernel(), Names::default());
        set_default(chosen).unwrap();
        assert_eq!(default(), Ok(chosen));
        assert!(Arc::ptr_eq(&find(0).unwrap(), &find(chosen).unwrap()));
        assert_eq!(set_default(chosen + 1), Err(Failure(libc::EINVAL)));
        assert_eq!(default(), Ok(chosen));
        drop(native);
        delete(chosen).unwrap();
        assert_eq!(default(), Err(Failure(libc::ENODEV)));
        assert_eq!(find(0).err(), Some(Failure(libc::ENODEV)));
        set_default(0).unwrap();
        assert_eq!(default(), Ok(0));
    }
}
