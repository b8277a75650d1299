use super::*;

fn split(text: &str) -> Vec<String> {
    words(text, text).unwrap()
}

#[test]
fn words_are_upstreams() {
    // What vde_plug's cmd:// hands over, asked of it.
    assert_eq!(split(r#"a 'b c' "d e" f\ g"#), ["a", "b c", "d e", "f g"]);
    assert_eq!(split(r#"a 'b\c' "d\"e\n" f\\g"#), ["a", r"b\c", r#"d\"e\n"#, r"f\g"]);
    assert_eq!(split("x''y '' z"), ["xy", "", "z"]);
    assert_eq!(split("a\"b c\"d\te # %20\nf"), ["ab cd", "e", "#", "%20", "f"]);
    assert_eq!(split("a > /tmp/x | y & ~"), ["a", ">", "/tmp/x", "|", "y", "&", "~"]);
    assert_eq!(split(r"a \; b ';' c"), ["a", ";", "b", ";", "c"]);
    assert_eq!(split(" \t"), [""; 0]);
    assert_eq!(split("$HOME"), ["$HOME"]);
}

#[test]
fn what_is_not_one_command_is_refused() {
    for wrong in ["a 'b", "a \"b", "a; b", ""] {
        let error = crate::open(&format!("cmd://{wrong}")).unwrap_err();
        assert!(matches!(error, LinkError::Syntax(_)), "{error}");
    }
    let error = crate::open("cmd://no-such-command-here x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cmd://no-such-command-here x: running \"no-such-command-here\": ENOENT: No such file or directory"
    );
}

proptest::proptest! {
    #[test]
    fn any_line_is_split_or_refused(text in r#"[ab '"\\; \t$]{0,40}"#) {
        if let Ok(words) = words(&text, &text) {
            proptest::prop_assert!(words.iter().map(String::len).sum::<usize>() <= text.len());
        }
    }

    #[test]
    fn quoted_words_come_out_as_they_were(parts in proptest::collection::vec("[^'\0]{0,20}", 0..8)) {
        let line: Vec<_> = parts.iter().map(|part| format!("'{part}'")).collect();
        proptest::prop_assert_eq!(split(&line.join(" ")), parts);
    }
}
