//! Which node to be.

use std::fmt;

use ioth::conf::Config;
use ioth::{SockAddr, Stack};

use crate::{Context, Failure, place};

/// The options that every program has.
#[derive(Clone, Debug, clap::Args)]
pub struct Node {
    /// The node to be: stack=NAME,vnl=NETWORK,ip=ADDRESS/LENGTH[,gw=ADDRESS]; stack=kernel is the host itself
    #[arg(long, value_name = "CONFIG", value_parser = config)]
    pub stack: String,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub verbose: bool,
}

impl Node {
    /// Makes the node.
    ///
    /// # Errors
    /// What was wrong with the string, or why its network cannot be reached.
    pub fn start(&self) -> Result<Stack, Failure> {
        let stack = Stack::new(&self.stack).context(|| format!("node \"{}\"", self.stack))?;
        if self.verbose {
            let addrs = stack.getifaddrs().context(|| "addresses of the node".to_owned())?;
            let own =
                addrs.iter().filter(|entry| !entry.flags.contains(ioth::core::netlink::LinkFlags::LOOPBACK));
            let own: Vec<_> = own.filter_map(|entry| Some(entry.addr.as_ip()?.ip().to_string())).collect();
            self.tell(format_args!("a node ({}) with {}", stack.backend(), own.join(", ")));
        }
        Ok(stack)
    }

    /// Tells progress, if it is wanted.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        if self.verbose {
            eprintln!("{what}");
        }
    }

    /// An address for [`tell`](Self::tell).
    pub fn show(addr: &SockAddr) -> String {
        addr.as_ip().map_or_else(|| format!("{addr:?}"), |addr| place::plain(addr).to_string())
    }
}

/// Reads a configuration string, so that a wrong one is a usage error; the stack takes it as text.
fn config(text: &str) -> Result<String, String> {
    text.parse::<Config>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        node: Node,
    }

    #[test]
    fn a_wrong_configuration_is_a_usage_error() {
        let error = Cli::try_parse_from(["program", "--stack", "stack=smoltcp,vln=null://"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean \"vnl\"?"), "{error}");
        assert_eq!(Cli::try_parse_from(["program"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_unknown_network_says_which_are_known() {
        let cli = Cli::try_parse_from(["program", "--stack", "stack=smoltcp,vnl=vd:///tmp/sw"]).unwrap();
        let message = cli.node.start().unwrap_err().to_string();
        assert!(message.contains("unknown scheme \"vd\"") && message.contains("switch"), "{message}");
    }
}
