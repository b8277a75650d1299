//! Which full names are tried for one that may be short. Read resolv.conf(5) on `search` and `ndots` first.

use domain::base::Name;

use super::message::Failure;

/// How many domains are tried.
const MOST_DOMAINS: usize = 32;

/// A name's way through the search list: take the names one by one, and say what became of each.
#[derive(Debug)]
pub(crate) struct Search {
    /// What is left to be tried, the next at the end.
    names: Vec<(Kind, Name<Vec<u8>>)>,
    current: Kind,
    /// What came of the name itself, when it was tried first.
    first: Option<Failure>,
    no_data: bool,
    rejected: bool,
    last: Failure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The name itself, with nothing after it.
    Alone,
    /// The name itself, before the domains.
    First,
    /// In a domain of the list.
    Domain,
    /// The name itself, after the domains.
    Last,
}

impl Search {
    pub(crate) fn new(name: &str, domains: &[String]) -> Search {
        let absolute = |text: &str| Name::<Vec<u8>>::from_chars(text.chars()).ok();
        let mut names = Vec::new();
        let mut add = |kind, text: &str| names.extend(absolute(text).map(|name| (kind, name)));
        // The dot at the end: "it is an absolute name". ndots is 1: a name with a dot in it is tried itself first.
        let (complete, dotted) = (name.ends_with('.'), name.contains('.'));
        if complete {
            add(Kind::Alone, name);
        } else {
            if dotted {
                add(Kind::First, name);
            }
            for domain in domains.iter().take(MOST_DOMAINS) {
                add(Kind::Domain, &format!("{name}.{}", domain.trim_start_matches('.')));
            }
            if !dotted {
                add(Kind::Last, name);
            }
        }
        names.reverse();
        Search {
            names,
            current: Kind::Alone,
            first: None,
            no_data: false,
            rejected: false,
            last: Failure::NotFound,
        }
    }

    /// The next name to be tried.
    pub(crate) fn next(&mut self) -> Option<Name<Vec<u8>>> {
        let (kind, name) = self.names.pop()?;
        self.current = kind;
        Some(name)
    }

    /// The name that came last gave nothing.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.last = failure;
        if self.current == Kind::First {
            self.first = Some(failure);
        }
        match failure {
            // Nobody is there to be asked for the others.
            Failure::Unreachable(_) => self.names.clear(),
            _ if self.current != Kind::Domain => {}
            Failure::NoData => self.no_data = true,
            Failure::Rejected => self.rejected = true,
            Failure::NotFound => {}
            Failure::NoRecovery => self.names.retain(|(kind, _)| *kind != Kind::Domain),
        }
    }

    /// What to say when nothing was found.
    pub(crate) fn outcome(&self) -> Failure {
        match self.last {
            Failure::Unreachable(_) => self.last,
            _ if self.first.is_some() => self.first.unwrap_or(self.last),
            _ if self.no_data => Failure::NoData,
            _ if self.rejected => Failure::Rejected,
            last => last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &str, answers: &[Failure]) -> (Vec<String>, Failure) {
        let domains = ["a.org".to_owned(), ".b.org".to_owned()];
        let mut search = Search::new(name, &domains);
        let (mut names, mut answers) = (Vec::new(), answers.iter());
        while let Some(name) = search.next() {
            names.push(name.to_string());
            search.failed(*answers.next().unwrap_or(&Failure::NotFound));
        }
        (names, search.outcome())
    }

    #[test]
    fn names_are_tried_in_turn() {
        use Failure::*;
        let dead = Unreachable(ioth::Errno::ETIMEDOUT);
        let cases: [(&str, &[Failure], &[&str], Failure); 9] = [
            ("www", &[], &["www.a.org", "www.b.org", "www"], NotFound),
            ("www", &[NoData], &["www.a.org", "www.b.org", "www"], NoData),
            ("www", &[Rejected], &["www.a.org", "www.b.org", "www"], Rejected),
            ("www", &[NoRecovery], &["www.a.org", "www"], NotFound),
            ("www", &[dead], &["www.a.org"], dead),
            ("www.c", &[], &["www.c", "www.c.a.org", "www.c.b.org"], NotFound),
            ("www.c", &[NoData, NotFound], &["www.c", "www.c.a.org", "www.c.b.org"], NoData),
            ("www.c.", &[NoData], &["www.c"], NoData),
            ("www.c", &[dead], &["www.c"], dead),
        ];
        for (name, answers, names, outcome) in cases {
            assert_eq!(
                tried(name, answers),
                (names.iter().map(|name| name.to_string()).collect(), outcome),
                "{name}"
            );
        }
        // What does not fit into a name is left out.
        let long = ["x".repeat(60), "x".repeat(60), "x".repeat(60), "x".repeat(60)].join(".");
        assert_eq!(tried(&long, &[]).0, [long.as_str(), &format!("{long}.a.org"), &format!("{long}.b.org")]);
        let longer = format!("{long}.{}", "x".repeat(7));
        assert_eq!(tried(&longer, &[]).0, [longer]);
    }
}
