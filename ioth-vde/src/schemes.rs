//! Schemes: what opens `name://...`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::datagram::MTU;
use crate::ether::MTU_MAX;
use crate::vnl::{self, Keys, Locator, Nested, Params};
use crate::{Link, LinkError};

/// Opens a link of one scheme.
pub type Opener = Arc<dyn Fn(&Spec<'_>) -> Result<Arc<dyn Link>, LinkError> + Send + Sync>;

/// How deep VNLs may be nested: `pcap://{fault://{switch://lan}}` is three.
pub const MAX_DEPTH: usize = 16;

/// The table of schemes: explicit, ordered by name, open to third parties.
///
/// ```
/// use std::sync::Arc;
///
/// let mut schemes = ioth_vde::Schemes::builtin();
/// schemes.register("loop", Arc::new(|spec| spec.inner("switch://loop")));
/// let link = schemes.open("loop://").unwrap();
/// assert_eq!(link.properties().mtu, 1500);
/// ```
#[derive(Clone, Default)]
pub struct Schemes {
    openers: BTreeMap<String, Opener>,
    wide: bool,
}

impl Schemes {
    /// An empty table.
    pub fn new() -> Self {
        Schemes::default()
    }

    /// The schemes of this crate.
    pub fn builtin() -> Self {
        let mut schemes = Schemes::new();
        for (name, opener) in BUILTIN {
            schemes.register(*name, Arc::new(opener));
        }
        schemes
    }

    /// Adds a scheme, or replaces the one of that name.
    pub fn register(&mut self, name: impl Into<String>, opener: Opener) {
        self.openers.insert(name.into(), opener);
    }

    /// Has links whose VNL names no MTU carry the longest frames of VDE, instead of Ethernet's: for a program that takes whatever
    /// comes by. A network with a limit of its own (`vxlan://`, an interface) keeps it, and so does a LAN of the process.
    ///
    /// ```
    /// let schemes = ioth_vde::Schemes::builtin().widest();
    /// assert_eq!(schemes.open("cmd://cat").unwrap().properties().mtu, 9216);
    /// ```
    #[must_use]
    pub fn widest(mut self) -> Self {
        self.wide = true;
        self
    }

    /// Opens a link by its VNL, which has no interface name in front (see [`vnl::split_ifname`]).
    ///
    /// # Errors
    /// [`LinkError::Scheme`] when nothing here opens it, [`LinkError::Syntax`], or the scheme's own.
    pub fn open(&self, vnl: &str) -> Result<Arc<dyn Link>, LinkError> {
        self.open_at(vnl, 1)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.openers.keys().map(String::as_str)
    }

    fn open_at(&self, vnl: &str, depth: usize) -> Result<Arc<dyn Link>, LinkError> {
        if depth > MAX_DEPTH {
            return Err(vnl::syntax(format!("nested more than {MAX_DEPTH} deep, at \"{vnl}\"")));
        }
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let (locator, file) = Locator::resolve_from(vnl, home.as_deref())?;
        let opener = self.openers.get(&locator.scheme).ok_or_else(|| LinkError::Scheme {
            scheme: locator.scheme.clone(),
            vnl: vnl.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })?;
        let vnl = locator.to_string();
        let spec = Spec { scheme: &locator.scheme, rest: &locator.rest, vnl: &vnl, schemes: self, depth };
        opener(&spec).map_err(|error| match &file {
            Some(file) => error.in_file(file),
            None => error,
        })
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What an [`Opener`] is asked to open.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// What stands before `://`.
    pub scheme: &'a str,
    /// What stands behind it.
    pub rest: &'a str,
    /// The whole VNL, for messages.
    pub vnl: &'a str,
    schemes: &'a Schemes,
    depth: usize,
}

impl<'a> Spec<'a> {
    /// The rest in [bracket style](vnl::bracket).
    ///
    /// # Errors
    /// As [`vnl::bracket`].
    pub fn bracket(&self, keys: Keys) -> Result<(&'a str, Params), LinkError> {
        vnl::bracket(self.rest, keys, self.vnl)
    }

    /// The rest in [slash style](vnl::slash).
    ///
    /// # Errors
    /// As [`vnl::slash`].
    pub fn slash(&self, keys: Keys) -> Result<(String, Params), LinkError> {
        vnl::slash(self.rest, keys, self.vnl)
    }

    /// The rest in [nested style](vnl::nested).
    ///
    /// # Errors
    /// As [`vnl::nested`].
    pub fn nested(&self) -> Result<Nested<'a>, LinkError> {
        vnl::nested(self.rest, self.vnl)
    }

    /// The MTU of a link whose VNL names none and that can have any: Ethernet's, or VDE's largest (see [`Schemes::widest`]).
    pub fn default_mtu(&self) -> usize {
        if self.schemes.wide { MTU_MAX } else { MTU }
    }

    /// Opens the link under a wrapper as often as it is called, by the table as it is now.
    pub fn reopener(&self, vnl: &str) -> crate::restart::Opener {
        let (schemes, vnl, depth) = (self.schemes.clone(), vnl.to_owned(), self.depth + 1);
        Box::new(move || schemes.open_at(&vnl, depth))
    }

    /// Opens the link under a wrapper, by the same table.
    ///
    /// # Errors
    /// As [`Schemes::open`], and [`LinkError::Syntax`] past [`MAX_DEPTH`].
    pub fn inner(&self, vnl: &str) -> Result<Arc<dyn Link>, LinkError> {
        self.schemes.open_at(vnl, self.depth + 1)
    }
}

/// Opens a link by its VNL with the schemes of this crate.
///
/// # Errors
/// As [`Schemes::open`].
pub fn open(vnl: &str) -> Result<Arc<dyn Link>, LinkError> {
    Schemes::builtin().open(vnl)
}

type Open = fn(&Spec<'_>) -> Result<Arc<dyn Link>, LinkError>;

const BUILTIN: &[(&str, Open)] = &[
    ("bonding", crate::node::open),
    ("cmd", crate::cmd::open),
    ("fault", crate::fault::open),
    ("hub", crate::lan::open),
    ("macvtap", crate::tap::open_macvtap),
    ("multi", crate::node::open),
    ("null", crate::null::open),
    ("pcap", crate::pcap::open),
    ("ptp", crate::ptp::open),
    ("rate", crate::rate::open),
    ("restart", crate::restart::open),
    ("seqpacket", crate::seqpacket::open),
    ("switch", crate::lan::open),
    ("tap", crate::tap::open),
    ("udp", crate::udp::open),
    ("vde", crate::vde::open),
    ("vlan", crate::vlan::open),
    ("vxlan", crate::vxlan::open),
    ("vxvde", crate::vxvde::open),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_scheme() {
        let error = open("vd:///tmp/sw").unwrap_err();
        let known = Schemes::builtin().names().collect::<Vec<_>>().join(", ");
        assert_eq!(
            error.to_string(),
            format!("vnl: unknown scheme \"vd\" in \"vd:///tmp/sw\" (known: {known})")
        );
    }

    #[test]
    fn a_file_of_a_vnl_is_named() {
        let file = std::env::temp_dir().join(format!("ioth-schemes-{}", std::process::id()));
        for line in ["vde:///no/such/switch", "switch://x[color=red]", "vxvde://239.0.0.1/v6"] {
            std::fs::write(&file, line).unwrap();
            let said = open(file.to_str().unwrap()).unwrap_err().to_string();
            assert!(said.contains(file.to_str().unwrap()), "{said}");
            let alone = open(line).unwrap_err().to_string();
            assert!(!alone.contains("the file"), "{alone}");
        }
        std::fs::remove_file(&file).unwrap();
        let said = open("vxvde://239.0.0.1/v6").unwrap_err().to_string();
        assert!(said.contains("IPv6 address (/v6) of the group \"239.0.0.1\""), "{said}");
    }

    #[test]
    fn third_party() {
        let mut schemes = Schemes::builtin();
        schemes.register("again", Arc::new(|spec| spec.inner(spec.nested()?.inner)));
        let link = schemes.open("again://{again://{switch://third-party[mtu=9000]}}").unwrap();
        assert_eq!(link.properties().mtu, 9000);
        let deep = format!("{}{}", "again://{".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        assert!(schemes.open(&deep).unwrap_err().to_string().contains("nested more than"));
        assert!(open("again://{null://}").is_err());
    }
}
