//! Which node am I?

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock, Weak};

use ioth_core::fork::Inherited;
use ioth_core::{Errno, Stack as Backend};

use crate::{Error, Result, Stack};

/// The process's choice; `None` is the kernel's stack.
///
/// A forked child has the same: on the parent's node its sockets fail with `ENODEV`, until it chooses another. One that
/// could not take the choice over has a stack that is no more, for traffic must not turn up elsewhere by itself.
static PROCESS: Inherited<Option<Weak<dyn Backend>>> =
    Inherited::new(|| None, || Some(Weak::<ioth_kernel::KernelStack>::new() as Weak<dyn Backend>));

/// What there is without a choice: the node that the process is anyway.
static NATIVE: LazyLock<Stack> =
    LazyLock::new(|| Stack::from(Arc::new(ioth_kernel::KernelStack::new()) as Arc<dyn Backend>));

thread_local! {
    static ENTERED: RefCell<Entries> = const { RefCell::new(Entries { next: 0, stacks: Vec::new() }) };
}

/// The guards of a thread, the youngest last.
struct Entries {
    next: u64,
    stacks: Vec<(u64, Weak<dyn Backend>)>,
}

/// Makes `stack` the default of the process, for sockets made from now on by threads that have none of
/// their own ([`Stack::enter`]); `None` is the kernel's stack.
///
/// The default does not keep the stack alive. When it is gone, sockets fail with `ENODEV` until
/// another default is set: traffic must not turn up on another network by itself.
pub fn set_defstack(stack: Option<&Stack>) {
    *PROCESS.write() = stack.map(|stack| Arc::downgrade(stack.as_backend()));
}

/// The stack on which the calling thread makes its sockets: that of its youngest [`Stack::enter`] guard, else the
/// process's default, else the kernel's.
///
/// # Errors
/// `ENODEV` when the default is a stack that is no more.
pub fn get_defstack() -> Result<Stack> {
    let own = ENTERED.try_with(|entered| entered.borrow().stacks.last().map(|(_, stack)| stack.clone()));
    let chosen = own.ok().flatten().or_else(|| PROCESS.read().clone());
    match chosen {
        None => Ok(NATIVE.clone()),
        Some(stack) => stack
            .upgrade()
            .map(Stack::from)
            .ok_or(Error::Os { what: "the default stack is gone", errno: Errno::ENODEV }),
    }
}

/// The default stack of a thread, until dropped; made by [`Stack::enter`].
///
/// Guards may nest, and be dropped in any order: the youngest that is left counts.
#[must_use = "the default ends when the guard is dropped"]
#[derive(Debug)]
pub struct Entered<'a> {
    id: u64,
    /// It belongs to its thread: neither `Send` nor `Sync`.
    stack: PhantomData<(&'a Stack, *const ())>,
}

pub(crate) fn enter(stack: &Stack) -> Entered<'_> {
    let id = ENTERED.with(|entered| {
        let mut entered = entered.borrow_mut();
        let id = entered.next;
        entered.next += 1;
        entered.stacks.push((id, Arc::downgrade(stack.as_backend())));
        id
    });
    Entered { id, stack: PhantomData }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // A guard kept in another thread-local may outlive the list.
        let _ = ENTERED.try_with(|entered| {
            let left = {
                let mut entered = entered.borrow_mut();
                let at = entered.stacks.iter().rposition(|(id, _)| *id == self.id);
                at.map(|at| entered.stacks.remove(at))
            };
            drop(left);
        });
    }
}

/// ```compile_fail,E0277
/// fn send(_: impl Send) {}
/// let stack = ioth::Stack::newstack("kernel", None).unwrap();
/// send(stack.enter());
/// ```
#[cfg(doctest)]
struct EnteredIsNotSend;
