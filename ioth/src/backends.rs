//! The table of backends.

use ioth_core::Registry;
use ioth_core::fork::Inherited;
use ioth_core::registry::Factory;

static BACKENDS: Inherited<Registry> = Inherited::new(builtin, builtin);

/// The backends that this crate's features bring, by name. The empty name stands for the kernel's stack, as upstream.
pub fn builtin() -> Registry {
    let mut table = Registry::new();
    #[cfg(feature = "kernel")]
    {
        table.register("", ioth_kernel::factory());
        table.register("kernel", ioth_kernel::factory());
        table.register(ioth_kernel::vdestack::NAME, ioth_kernel::vdestack::factory());
    }
    #[cfg(feature = "node")]
    table.register(ioth_node_client::NAME, ioth_node_client::factory());
    #[cfg(feature = "smoltcp")]
    table.register(ioth_smoltcp::NAME, ioth_smoltcp::factory());
    table
}

/// Adds a backend to the process's table, or replaces the one of that name.
pub fn register(name: impl Into<String>, factory: Factory) {
    BACKENDS.write().register(name, factory);
}

/// The process's table as it is now: the [`builtin`] backends and those of [`register`].
pub fn backends() -> Registry {
    BACKENDS.read().clone()
}
