//! The process that the memory row asks: it has many nodes and does nothing.

use std::io;

use ioth::Stack;

/// Makes `nodes` nodes on `vnl`: the KiB of memory of each.
pub(crate) fn measure(vnl: &str, nodes: usize) -> Result<f64, String> {
    let node = |number: usize| {
        let [.., high, low] = number.to_be_bytes();
        let config = format!("stack=smoltcp,vnl={vnl},eth,ip=10.96.{high}.{low}/16");
        Stack::new(&config).map_err(|error| format!("node {number}: {error}"))
    };
    // What the first brings is the process's.
    let _first = node(1)?;
    let before = pss().map_err(|error| error.to_string())?;
    let all = (0..nodes).map(|number| node(number + 2)).collect::<Result<Vec<_>, _>>()?;
    let after = pss().map_err(|error| error.to_string())?;
    drop(all);
    Ok((after - before) / nodes as f64)
}

/// KiB of memory of this process, shared pages in proportion.
fn pss() -> io::Result<f64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/smaps_rollup has no line \"Pss: N kB\""))
}
