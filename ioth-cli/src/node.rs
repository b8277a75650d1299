//! `ioth node`.

use ioth_node_client::named;

use crate::args::Node;
use crate::failure::Result;
use crate::serve::{Begin, Lease};
use crate::{serve, start};

/// Makes, stops or lists nodes with a name.
///
/// # Errors
/// Why it cannot.
pub(crate) fn node(args: &Node) -> Result<()> {
    let Some(name) = &args.name else {
        named::list()?.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    if args.stop {
        if args.verbose {
            eprintln!("ioth: waiting for the node {name} to end");
        }
        return Ok(named::stop(name)?);
    }
    let config = start::config(args.stack.as_deref())?;
    if !args.foreground {
        let served = start::start(config, Some(name), None)?;
        if args.verbose {
            eprintln!("ioth: the node {name}: process {}, {config}", served.pid);
        }
        return Ok(());
    }
    let (place, control) = ioth_node_client::start::control()?;
    let begin = Begin { config, place, control, lease: Lease::Name(name) };
    serve::serve(begin, || {
        if args.verbose {
            eprintln!("ioth: the node {name} serves: {config}");
        }
        Ok(())
    })
}
