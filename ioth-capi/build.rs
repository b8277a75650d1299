//! Compiles the variadic functions and names the shared library.

fn main() {
    const VARIADIC: &str = "src/sys/variadic.c";
    println!("cargo::rerun-if-changed={VARIADIC}");
    cc::Build::new()
        .file(VARIADIC)
        .std("c11")
        .flag("-Werror=implicit-function-declaration")
        .warnings(true)
        .extra_warnings(true)
        .compile("ioth_variadic");
    // Programs ask the loader for this name, as with the C library; a new number would mean another interface.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libioth.so.0");
    // Its threads and its function for exit(3) stay when a program is done with what it got by dlopen(3).
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
