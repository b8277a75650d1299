//! iothconf.h: stacks configured by strings.

use std::ffi::{c_char, c_int};
use std::ptr::{null_mut, without_provenance_mut};

use ioth::Stack;
use ioth::conf::Config;

use super::{Ioth, memory};
use crate::handle;
use crate::names::Names;
use crate::outcome::{Result, run};

/// # Safety
/// The string is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_config(stack: *mut Ioth, config: *const c_char) -> c_int {
    run(|| {
        let stack = stack.addr();
        let node = handle::find(stack)?;
        // SAFETY: the caller's promise.
        let config = unsafe { read(config)? };
        let applied = config.apply(&**node.as_backend())?;
        handle::with_names(stack, |_, names| {
            names.apply(&config);
            Ok(())
        })?;
        Ok(applied.bits() as c_int)
    })
}

/// # Safety
/// The string is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_newstackc(config: *const c_char) -> *mut Ioth {
    run(|| {
        // SAFETY: the caller's promise.
        let config = unsafe { read(config)? };
        let stack = Stack::from(config.create(&ioth::backends())?);
        let mut names = Names::default();
        names.apply(&config);
        Ok(without_provenance_mut(handle::add(stack, names)))
    })
}

/// # Safety
/// The string is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_resolvconf(stack: *mut Ioth, config: *const c_char) -> *mut c_char {
    // "Nothing new" and an error are told apart by errno alone; success leaves it as it is.
    ioth::Errno::clear();
    run(|| {
        let node = stack.addr();
        handle::find(node)?;
        // SAFETY: the caller's promise.
        let selection = unsafe { memory::text(config)? }.unwrap_or_default();
        let text = handle::with_names(node, |stack, names| names.changed(stack, selection))?;
        let Some(text) = text else { return Ok(null_mut()) };
        let mut text = text.into_bytes();
        text.push(0);
        Ok(memory::allocate(&text)?.cast())
    })
}

/// A configuration; NULL is the empty one.
///
/// # Safety
/// The string is not changed meanwhile.
unsafe fn read(config: *const c_char) -> Result<Config> {
    // SAFETY: the caller's promise.
    Ok(unsafe { memory::text(config)? }.unwrap_or_default().parse()?)
}
