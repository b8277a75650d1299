//! Schemes: what opens `name://...`.
//!
//! The crate's own are always there. A program adds others to its process by [`register`], for whatever opens a VNL in it: stacks and
//! their configuration strings, [`open`], what stands within other VNLs. For one place only it hands a table of its own, [`Schemes`], to
//! what opens links there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ioth_core::Errno;
use ioth_core::fork::Inherited;

use crate::datagram::MTU;
use crate::ether::MTU_MAX;
use crate::vnl::{self, Keys, Locator, Nested, Params};
use crate::{Link, LinkError};

/// Opens a link of one scheme.
pub type Opener = Arc<dyn Fn(&Spec<'_>) -> Result<Arc<dyn Link>, LinkError> + Send + Sync>;

/// How deep VNLs may be nested: `pcap://{fault://{switch://lan}}` is three.
pub const MAX_DEPTH: usize = 16;

/// Longest name of a scheme that is [registered](register), in bytes.
pub const MAX_NAME: usize = 32;

/// What [`register`] was given.
static REGISTERED: Inherited<BTreeMap<String, Opener>> = Inherited::new(BTreeMap::new, BTreeMap::new);

/// Adds a scheme to the process: from now on any VNL opened in it may have the form `name://...`, within another one as well.
///
/// It stays for as long as the process, and forked children have it, too. Any thread may call this at any time; `opener` runs in the
/// thread that opens a link, in several at once, and may open links itself ([`Spec::inner`]). A node process (`stack=node`, `ioth run`) is
/// another program: it has the schemes of this crate only.
///
/// ```
/// use std::sync::Arc;
///
/// // Each floor of the house has a LAN of its own: floor://2
/// ioth_vde::register("floor", Arc::new(|spec| spec.inner(&format!("switch://house-{}[mtu=9000]", spec.rest))))?;
/// assert_eq!(ioth_vde::open("floor://2")?.properties().mtu, 9000);
/// assert!(ioth_vde::open("fault://{floor://2}/loss=1%").is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RegisterError`]: a name that no VNL can have, and one that is taken. Nothing is ever replaced: what a VNL means does not depend
/// on who came last.
pub fn register(name: &str, opener: Opener) -> Result<(), RegisterError> {
    // `split_ifname` and the nested forms read a VNL before anything looks for its scheme.
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_');
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || name.len() > MAX_NAME
        || !name.bytes().all(fits)
    {
        return Err(RegisterError::Name(name.chars().take(2 * MAX_NAME).collect()));
    }
    if builtin(name).is_some() {
        return Err(RegisterError::Builtin(name.to_owned()));
    }
    match REGISTERED.write().entry(name.to_owned()) {
        std::collections::btree_map::Entry::Occupied(_) => Err(RegisterError::Taken(name.to_owned())),
        std::collections::btree_map::Entry::Vacant(place) => {
            place.insert(opener);
            Ok(())
        }
    }
}

/// Error returned by [`register`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// It cannot stand before `://`.
    #[error(
        "scheme name {0:?} (1 to {MAX_NAME} bytes: a letter of ASCII, then letters, digits, '+', '-', '.' or '_')"
    )]
    Name(String),
    /// The scheme is one of this crate's.
    #[error("the scheme \"{0}\" is built in, and is not replaced; choose another name")]
    Builtin(String),
    /// It was registered before.
    #[error("the scheme \"{0}\" is registered already; choose another name")]
    Taken(String),
}

impl RegisterError {
    /// The error as Linux numbers it.
    pub fn errno(&self) -> Errno {
        match self {
            RegisterError::Name(_) => Errno::EINVAL,
            RegisterError::Builtin(_) | RegisterError::Taken(_) => Errno::EEXIST,
        }
    }
}

impl From<RegisterError> for std::io::Error {
    fn from(error: RegisterError) -> Self {
        std::io::Error::new(std::io::Error::from(error.errno()).kind(), error)
    }
}

/// A table of schemes: explicit, ordered by name, open to third parties.
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
    /// Those of the crate and of the process stand behind these.
    process: bool,
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

    /// The schemes of this crate and those of the process ([`register`]), also those that are registered later.
    pub fn process() -> Self {
        Schemes { process: true, ..Schemes::default() }
    }

    /// Adds a scheme to this table, or replaces the one of that name in it.
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

    /// The names as they are now, in order.
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        let mut names: BTreeSet<String> = self.openers.keys().cloned().collect();
        if self.process {
            names.extend(BUILTIN.iter().map(|(name, _)| (*name).to_owned()));
            names.extend(REGISTERED.read().keys().cloned());
        }
        names.into_iter()
    }

    fn opener(&self, scheme: &str) -> Option<Opener> {
        if let Some(opener) = self.openers.get(scheme) {
            return Some(opener.clone());
        }
        if !self.process {
            return None;
        }
        // The lock is held for a moment only: an opener may take long, and register schemes itself.
        builtin(scheme)
            .map(|open| -> Opener { Arc::new(open) })
            .or_else(|| REGISTERED.read().get(scheme).cloned())
    }

    fn open_at(&self, vnl: &str, depth: usize) -> Result<Arc<dyn Link>, LinkError> {
        if depth > MAX_DEPTH {
            return Err(vnl::syntax(format!("nested more than {MAX_DEPTH} deep, at \"{vnl}\"")));
        }
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let (locator, file) = Locator::resolve_from(vnl, home.as_deref())?;
        let opener = self.opener(&locator.scheme).ok_or_else(|| LinkError::Scheme {
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

/// Opens a link by its VNL with the schemes of this crate and of the process ([`Schemes::process`]).
///
/// # Errors
/// As [`Schemes::open`].
pub fn open(vnl: &str) -> Result<Arc<dyn Link>, LinkError> {
    Schemes::process().open(vnl)
}

fn builtin(name: &str) -> Option<Open> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, open)| *open)
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
        let error = Schemes::builtin().open("vd:///tmp/sw").unwrap_err();
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

    #[test]
    fn a_scheme_of_the_process() {
        let opener = || -> Opener { Arc::new(|spec| spec.inner(&format!("switch://{}", spec.rest))) };
        let before = Schemes::process();
        register("unit-test", opener()).unwrap();
        for schemes in [before, Schemes::process().widest()] {
            assert!(schemes.open("rate://{unit-test://lan}").is_ok());
            assert!(schemes.names().any(|name| name == "unit-test"));
            let known = schemes.open("unit-tes://x").unwrap_err().to_string();
            assert!(known.contains("udp, unit-test, vde"), "{known}");
        }
        assert!(open("unit-test://lan").is_ok());
        // Tables of fixed content do not see it.
        assert_eq!(Schemes::builtin().open("unit-test://lan").unwrap_err().errno(), Errno::EPROTONOSUPPORT);

        let taken = register("unit-test", opener()).unwrap_err();
        assert_eq!(taken, RegisterError::Taken("unit-test".into()));
        assert_eq!(taken.errno(), Errno::EEXIST);
        let builtin = register("vde", opener()).unwrap_err();
        assert_eq!(
            builtin.to_string(),
            "the scheme \"vde\" is built in, and is not replaced; choose another name"
        );
        assert_eq!(std::io::Error::from(builtin).kind(), std::io::ErrorKind::AlreadyExists);
        for name in ["", "a:b", "a/b", "{", "1st", "x y", "\u{e9}t\u{e9}", "a\0", &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(register(name, opener()).unwrap_err().errno(), Errno::EINVAL, "{name:?}");
        }
        assert!(register("Z39.50+x_y", opener()).is_ok());
    }

    #[test]
    fn one_of_many_threads_registers() {
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| register("raced", Arc::new(|spec| spec.inner("null://"))).is_ok()))
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
        assert!(open("raced://").is_ok());
    }

    #[test]
    fn an_opener_may_register_and_open() {
        let opener: Opener = Arc::new(|spec| {
            let _ = register("found-inside", Arc::new(|spec| spec.inner("null://")));
            spec.inner("found-inside://")
        });
        register("finder", opener).unwrap();
        assert!(open("finder://").is_ok());
    }
}
