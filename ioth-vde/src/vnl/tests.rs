use super::*;
use proptest::prelude::*;

const KEYS: Keys = &["", "port", "group", "mode", "rcvbuf"];

fn message(error: LinkError) -> String {
    assert!(matches!(error, LinkError::Syntax(_)), "{error:?}");
    error.to_string()
}

#[test]
fn scheme_and_rest() {
    let of = |vnl| Locator::parse(vnl).unwrap();
    assert_eq!(of("vde:///tmp/sw[3]"), Locator { scheme: "vde".into(), rest: "/tmp/sw[3]".into() });
    assert_eq!(of("/tmp/sw"), Locator { scheme: "vde".into(), rest: "/tmp/sw".into() });
    assert_eq!(of("pcap://{vde://a}").rest, "{vde://a}");
    assert_eq!(of("switch://lan").to_string(), "switch://lan");
    assert!(message(Locator::parse("://x").unwrap_err()).contains("no scheme"));
    assert!(message(Locator::parse("a://\0").unwrap_err()).contains("NUL"));
    assert!(message(Locator::parse(&"x".repeat(MAX_LEN + 1)).unwrap_err()).contains("4097 bytes"));
}

#[test]
fn interface_names() {
    assert_eq!(split_ifname("vde0:vde:///tmp/sw").unwrap(), (Some("vde0"), "vde:///tmp/sw"));
    assert_eq!(split_ifname("vde:///tmp/sw").unwrap(), (None, "vde:///tmp/sw"));
    assert_eq!(split_ifname("eth0:/tmp/sw").unwrap(), (Some("eth0"), "/tmp/sw"));
    assert_eq!(split_ifname("eth0:").unwrap(), (Some("eth0"), ""));
    assert_eq!(split_ifname("/tmp/a:b").unwrap(), (None, "/tmp/a:b"));
    assert_eq!(split_ifname("").unwrap(), (None, ""));
    for wrong in [":vde://x", "a b:vde://x", "sixteen_bytes_xx:vde://x", ".:vde://x", "..:x", "a\u{b}:x"] {
        assert!(message(split_ifname(wrong).unwrap_err()).contains("interface name"), "{wrong}");
    }
}

#[test]
fn brackets() {
    let (path, params) = bracket("/tmp/sw", KEYS, "").unwrap();
    assert_eq!((path, params.get("port")), ("/tmp/sw", None));
    let (path, params) = bracket("/tmp/sw[po=3//mode=0700/gr]", KEYS, "").unwrap();
    assert_eq!(path, "/tmp/sw");
    assert_eq!(params.get("port"), Some("3"));
    assert_eq!(params.get("mode"), Some("0700"));
    assert_eq!(params.get("group"), Some(""));
    let (_, params) = bracket("[12]", KEYS, "").unwrap();
    assert_eq!(params.get(""), Some("12"));
    // The last ']' counts, and '[' only once.
    assert_eq!(bracket("p[a]]", KEYS, "").unwrap().1.get(""), Some("a]"));
    assert_eq!(bracket("p['a]']", KEYS, "").unwrap().1.get(""), Some("a]"));
    let whole = "vde://p[prot=1]";
    assert_eq!(
        message(bracket("p[prot=1]", KEYS, whole).unwrap_err()),
        "vnl: unknown key \"prot\" in \"vde://p[prot=1]\" (known: port, group, mode, rcvbuf)"
    );
    assert!(message(bracket("p[1", KEYS, "").unwrap_err()).contains("without ']'"));
    assert!(message(bracket("p[1]x", KEYS, "").unwrap_err()).contains("behind ']'"));
    assert!(message(bracket("p[=1]", KEYS, "").unwrap_err()).contains("unknown key \"\""));
}

#[test]
fn slashes() {
    let (address, params) = slash("239.0.0.1/port=5/rcv=1k", KEYS, "").unwrap();
    assert_eq!(address, "239.0.0.1");
    assert_eq!(params.number("port", 0..=9).unwrap(), Some(5));
    assert_eq!(params.number("rcvbuf", 0..=9999).unwrap(), Some(1024));
    assert_eq!(slash("'a/b'=c/7", KEYS, "").unwrap().0, "a/b=c");
    assert_eq!(slash("", KEYS, "").unwrap().0, "");
    let (_, params) = slash("/port=70000", KEYS, "x:///port=70000").unwrap();
    assert_eq!(
        message(params.number("port", 0..=65535).unwrap_err()),
        "vnl: \"port=70000\" in \"x:///port=70000\" (should be a number from 0 to 65535)"
    );
}

#[test]
fn braces() {
    let of = |rest| nested(rest, "").unwrap();
    assert_eq!(of("{vde://a}"), Nested { before: "", inner: "vde://a", after: "" });
    assert_eq!(of("f{p://{q://}/x}/y=1"), Nested { before: "f", inner: "p://{q://}/x", after: "/y=1" });
    assert_eq!(of(r"{a'}'}").inner, "a'}'");
    assert!(message(nested("vde://a", "").unwrap_err()).contains("no {VNL}"));
    assert!(message(nested("{vde://a", "").unwrap_err()).contains("without '}'"));
    assert!(message(nested("{vde://a}b", "").unwrap_err()).contains("behind '}'"));
}

#[test]
fn quoting() {
    let of = |text| Params::parse(text, KEYS, text).map(|params| params.get("").unwrap_or("-").to_owned());
    assert_eq!(of("'a/b=c'").unwrap(), "a/b=c");
    assert_eq!(of(r#""a\"/b""#).unwrap(), "a\"/b");
    assert_eq!(of(r"a\/b\=\\").unwrap(), r"a/b=\");
    assert_eq!(of("a%2fb%2F").unwrap(), "a/b/");
    assert_eq!(of("5%").unwrap(), "5%");
    assert_eq!(of("5%zz%4").unwrap(), "5%zz%4");
    assert_eq!(of("'%41'").unwrap(), "%41");
    assert_eq!(of("%c3%a9").unwrap(), "é");
    assert!(message(of("%ff").unwrap_err()).contains("UTF-8"));
    assert!(message(of("%00").unwrap_err()).contains("%XX"));
    assert!(message(of("'a").unwrap_err()).contains("open quote"));
    assert!(message(of("a\\").unwrap_err()).contains("open quote"));
}

#[test]
fn flags() {
    let of = |text| Params::parse(text, KEYS, text).unwrap().flag("group");
    assert_eq!(of(""), Ok(false));
    assert_eq!(of("group"), Ok(true));
    assert_eq!(of("group=1"), Ok(true));
    assert_eq!(of("group=0"), Ok(false));
    assert!(of("group=yes").is_err());
}

#[test]
fn sizes() {
    for (text, value) in [
        ("0", Some(0)),
        ("10", Some(10)),
        ("0x1F", Some(31)),
        ("017", Some(15)),
        ("2k", Some(2048)),
        ("0x1M", Some(1 << 20)),
        ("1g", Some(1 << 30)),
        ("3T", Some(3 << 40)),
        ("", None),
        ("k", None),
        ("-1", None),
        ("+1", None),
        ("0x", None),
        ("09", None),
        ("99999999999999999999", None),
        ("99999999999t", None),
        ("1é", None),
    ] {
        assert_eq!(size(text), value, "{text}");
    }
}

#[test]
fn files() {
    let home = std::env::temp_dir().join(format!("ioth-vnl-{}", std::process::id()));
    std::fs::create_dir_all(home.join(".vdeplug")).unwrap();
    let resolve = |vnl: &str| Locator::resolve(vnl, Some(&home));
    assert_eq!(resolve("").unwrap().to_string(), "vde://");

    let file = home.join("net");
    std::fs::write(&file, " switch://lan \r\nsecond line\n").unwrap();
    let name = file.to_str().unwrap();
    assert_eq!(resolve(name).unwrap().to_string(), "switch://lan");
    // One level: what the file names is a path, whatever it is.
    std::fs::write(&file, name).unwrap();
    assert_eq!(resolve(name).unwrap().to_string(), format!("vde://{name}"));
    std::fs::write(&file, [0xff, b'\n']).unwrap();
    assert!(message(resolve(name).unwrap_err()).contains("not UTF-8"));

    let dir = home.to_str().unwrap();
    assert_eq!(resolve(dir).unwrap().to_string(), format!("vde://{dir}"));
    std::fs::write(home.join(".vdeplug/default"), "hub://h\n").unwrap();
    assert_eq!(resolve("").unwrap().to_string(), "hub://h");
    assert_eq!(resolve("null://").unwrap().to_string(), "null://");
    std::fs::remove_dir_all(&home).unwrap();
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

proptest! {
    #[test]
    fn any_text(text in r#"([a-z0-9:/\[\]{}='"\\%]|.){0,40}"#) {
        let _ = split_ifname(&text);
        let _ = size(&text);
        let _ = bracket(&text, KEYS, &text);
        let _ = slash(&text, KEYS, &text);
        if let Ok(parts) = nested(&text, &text) {
            let again = format!("{}{{{}}}{}", parts.before, parts.inner, parts.after);
            prop_assert_eq!(again, text.clone());
        }
        if let Ok(locator) = Locator::parse(&text) {
            prop_assert_eq!(Locator::parse(&locator.to_string()), Ok(locator));
        }
    }

    #[test]
    fn quoted_values_survive(value in "[^\0]{1,20}", key in 1..4usize) {
        let key = ["port", "group", "mode"][key - 1];
        let text = format!("x[{key}={}/rcvbuf]", quote(&value));
        let (path, params) = bracket(&text, KEYS, &text).unwrap();
        prop_assert_eq!(path, "x");
        prop_assert_eq!(params.get(key), Some(&*value));
        prop_assert_eq!(params.get("rcvbuf"), Some(""));
    }

    #[test]
    fn numbers_survive(number: u64) {
        prop_assert_eq!(size(&number.to_string()), Some(number));
        prop_assert_eq!(size(&format!("{number:#x}")), Some(number));
    }
}
