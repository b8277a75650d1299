use super::*;
use crate::vnl;

#[test]
fn options_of_vnls() {
    let of = |rest: &str| {
        let (path, params) = vnl::bracket(rest, KEYS, rest)?;
        Options::new(path, &params, 1500).map(|options| (options.mode, options.properties.mtu))
    };
    assert_eq!(of("/x").unwrap(), (0o700, 1500));
    assert_eq!(of("/x[mode=0666/mtu=9000]").unwrap(), (0o666, 9000));
    for wrong in ["/x[mode=8]", "/x[mode=7777]", "/x[mtu=9217]", "/x[nothing]"] {
        assert!(matches!(of(wrong), Err(LinkError::Syntax(_))), "{wrong}");
    }
    assert!(crate::open("ptp://").unwrap_err().to_string().contains("no path"));
}

#[test]
fn places_where_no_socket_can_be() {
    let errno = |vnl: &str| crate::open(vnl).unwrap_err().errno();
    assert_eq!(errno("ptp:///no/such/dir/x"), Errno::ENOENT);
    // What is no socket is not cleared away.
    let file = std::env::temp_dir().join(format!("ioth-ptp-{}", std::process::id()));
    std::fs::write(&file, b"precious").unwrap();
    assert_eq!(errno(&format!("ptp://{}", file.display())), Errno::ENOTSOCK);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(errno(&format!("ptp:///tmp/{}", "x".repeat(120))), Errno::ENAMETOOLONG);
}
