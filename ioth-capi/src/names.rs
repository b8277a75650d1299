//! What `ioth_resolvconf` tells: name servers and domains, when they have changed.

use std::collections::BTreeMap;

use ioth::Stack;
use ioth::conf::{Config, Resolver};

use crate::outcome::Result;

/// The name servers and domains of a stack, and what the program was told of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    resolver: Resolver,
    /// The last text for each selection of an interface; only interfaces that there are can be selected.
    told: BTreeMap<String, String>,
}

impl Names {
    /// Takes over the words of a configuration.
    pub(crate) fn apply(&mut self, config: &Config) {
        self.resolver.apply(config);
    }

    /// The text of resolv.conf(5) for the interface that `selection` names, or for all; `None` when it is as it was the
    /// last time.
    pub(crate) fn changed(&mut self, stack: &Stack, selection: &str) -> Result<Option<String>> {
        let selection: Config = selection.parse()?;
        let text = self.resolver.select(&**stack.as_backend(), &selection)?.to_string();
        let told = self.told.entry(selection.to_string()).or_default();
        if *told == text {
            return Ok(None);
        }
        told.clone_from(&text);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    #[test]
    fn news_are_told_once() {
        let stack = Stack::newstack("kernel", None).unwrap();
        let mut names = Names::default();
        assert_eq!(names.changed(&stack, ""), Ok(None));
        names.apply(&"iface=lo,dns=10.0.0.1,domain=a".parse().unwrap());
        let text = Some("search a\nnameserver 10.0.0.1\n".to_owned());
        assert_eq!(names.changed(&stack, ""), Ok(text.clone()));
        assert_eq!(names.changed(&stack, ""), Ok(None));
        assert_eq!(names.changed(&stack, "iface=lo"), Ok(text.clone()));
        assert_eq!(names.changed(&stack, "ifindex=1"), Ok(text));
        names.apply(&"iface=lo,-dns=10.0.0.1,-domain=a".parse().unwrap());
        assert_eq!(names.changed(&stack, ""), Ok(Some(String::new())));
        assert_eq!(names.changed(&stack, ""), Ok(None));
        assert_eq!(names.changed(&stack, "iface=none9"), Err(Failure(libc::ENODEV)));
        assert_eq!(names.changed(&stack, "eth"), Err(Failure(libc::EINVAL)));
        assert_eq!(names.changed(&stack, "ifac=lo"), Err(Failure(libc::EINVAL)));
    }
}
