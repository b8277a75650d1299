//! Debian's tools and the kernel are the judges of the links. `cmd://vde_plug VNL` is the C program's side of each.

mod cmd;
mod datagram;
mod hostile;
mod overlay;
mod plug;
mod ptp;
mod switches;
mod trunks;
mod vlans;

#[test]
fn every_scheme_is_documented() {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (links, man) = (read("docs/links.md"), read("ioth-cli/man/ioth-vnl.7"));
    for name in ioth_vde::Schemes::builtin().names() {
        let vnl = format!("{name}://");
        assert!(links.contains(&format!("[`{vnl}")) || links.contains(&format!(", `{vnl}")), "{vnl}");
        assert!(man.contains(&vnl), "{vnl}");
    }
}
