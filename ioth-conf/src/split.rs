//! The syntax of option strings: separators, quotes, comments.

use std::iter::Peekable;
use std::str::Chars;

use crate::ConfigError;

/// A word as it stands in the string, quotes resolved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Where it begins, in characters from 1.
    pub(crate) position: usize,
    /// What stands before the first `=`.
    pub(crate) key: String,
    /// What stands behind it.
    pub(crate) value: Option<String>,
}

/// Cuts a string into words.
pub(crate) struct Tokens<'a> {
    chars: Peekable<Chars<'a>>,
    /// Characters consumed.
    read: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Tokens { chars: text.chars().peekable(), read: 0 }
    }

    fn next_char(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.read += 1;
        Some(c)
    }

    fn skip_separators(&mut self) {
        while let Some(&c) = self.chars.peek() {
            if c == '#' {
                while self.next_char().is_some_and(|c| c != '\n') {}
            } else if separator(c) {
                self.next_char();
            } else {
                break;
            }
        }
    }

    fn token(&mut self) -> Result<Token, ConfigError> {
        let position = self.read + 1;
        let (mut key, mut value, mut in_value) = (String::new(), String::new(), false);
        while let Some(&c) = self.chars.peek() {
            if separator(c) || c == '#' {
                break;
            }
            self.next_char();
            let opened = self.read;
            let part = if in_value { &mut value } else { &mut key };
            match c {
                '=' if !in_value => in_value = true,
                '\\' => part.push(self.next_char().ok_or(ConfigError::Quote { quote: c, position: opened })?),
                '\'' | '"' => self.quoted(c, opened, part)?,
                c => part.push(c),
            }
        }
        Ok(Token { position, key, value: in_value.then_some(value) })
    }

    /// Reads to the closing quote.
    fn quoted(&mut self, quote: char, opened: usize, into: &mut String) -> Result<(), ConfigError> {
        loop {
            let c = self.next_char().ok_or(ConfigError::Quote { quote, position: opened })?;
            let escaped =
                c == '\\' && quote == '"' && self.chars.peek().is_some_and(|c| matches!(c, '"' | '\\'));
            match c {
                c if c == quote => return Ok(()),
                _ if escaped => into.extend(self.next_char()),
                c => into.push(c),
            }
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<Token, ConfigError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_separators();
        self.chars.peek()?;
        Some(self.token())
    }
}

/// A value as it has to be written so that it is read back as it is.
pub(crate) fn quote(value: &str) -> String {
    if !value.is_empty() && !value.contains(|c| separator(c) || matches!(c, '#' | '\\' | '\'' | '"')) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn separator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | ',' | ';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words, as `position key=value`.
    fn split(text: &str) -> Vec<String> {
        Tokens::new(text)
            .map(|token| {
                let Token { position, key, value } = token.unwrap();
                format!("{position} {key}{}", value.map(|value| format!("={value}")).unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn separators_and_comments() {
        assert_eq!(split(" a,;\tb=1\n c "), ["2 a", "6 b=1", "11 c"]);
        assert_eq!(split("a # b,c\nd#e"), ["1 a", "9 d"]);
        assert_eq!(split("vnl=vde:///s[port=3]"), ["1 vnl=vde:///s[port=3]"]);
        assert_eq!(split("à b="), ["1 à", "3 b="]);
        assert!(split(" ,; # nothing").is_empty());
    }

    #[test]
    fn quotes() {
        assert_eq!(split(r#"a='x, y' b="x#\"\\\n"'z' c=x\,y"#), ["1 a=x, y", r#"10 b=x#"\\nz"#, "26 c=x,y"]);
        assert_eq!(split(r"'a=b'=c \=d"), ["1 a=b=c", "9 =d"]);
        assert_eq!(split("a=''"), ["1 a="]);
    }

    #[test]
    fn quotes_must_be_closed() {
        for (text, quote, position) in [("a 'b", '\'', 3), ("a=\"", '"', 3), ("ab\\", '\\', 3)] {
            let error = Tokens::new(text).find_map(Result::err).unwrap();
            assert_eq!(error.to_string(), ConfigError::Quote { quote, position }.to_string(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_value_is_read_back(value in any::<String>()) {
            let tokens: Vec<_> = Tokens::new(&format!("a={},b", quote(&value))).map(Result::unwrap).collect();
            prop_assert_eq!(tokens.len(), 2);
            prop_assert_eq!(tokens[0].value.as_deref(), Some(value.as_str()));
        }
    }
}
