//! Longest-prefix match: a hash table for each prefix length in use, the longest asked first.
//!
//! A lookup costs one probe a length in use (a handful in practice, 129 at most), however many routes there are.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use ioth_core::Cidr;
use ioth_core::cidr::mask;

use super::Map;
use crate::engine::route::Route;

/// The routes of a node by prefix.
pub(in crate::engine) struct Fib {
    v4: Vec<Level>,
    v6: Vec<Level>,
    len: usize,
    state: FixedState,
}

/// The routes to prefixes of one length; never empty.
struct Level {
    prefix_len: u8,
    /// By network address, the routes to it by rising metric.
    routes: Map<IpAddr, Vec<Route>>,
}

impl Fib {
    pub(super) fn new(state: FixedState) -> Self {
        Fib { v4: Vec::new(), v6: Vec::new(), len: 0, state }
    }

    /// Inserts a route, behind (`last`) or before those of the same metric.
    pub(in crate::engine) fn insert(&mut self, route: Route, last: bool) {
        let prefix_len = route.dst.prefix_len();
        let state = self.state.clone();
        let levels = self.levels_mut(route.dst.addr().is_ipv6());
        let at = match levels.binary_search_by(|level| prefix_len.cmp(&level.prefix_len)) {
            Ok(at) => at,
            Err(at) => {
                levels.insert(at, Level { prefix_len, routes: Map::with_hasher(state) });
                at
            }
        };
        let routes = levels[at].routes.entry(route.dst.addr()).or_insert_with(|| Vec::with_capacity(1));
        let metric = route.metric;
        let place = routes.partition_point(|other| other.metric < metric || last && other.metric == metric);
        routes.insert(place, route);
        self.len += 1;
    }

    /// Removes route number `at` of a prefix that has as many.
    pub(in crate::engine) fn remove(&mut self, dst: Cidr, at: usize) -> Route {
        let levels = self.levels_mut(dst.addr().is_ipv6());
        let found = levels.binary_search_by(|level| dst.prefix_len().cmp(&level.prefix_len));
        let level = found.expect("the caller found a route of that length");
        let routes = levels[level].routes.get_mut(&dst.addr()).expect("the caller found a route to it");
        let route = routes.remove(at);
        if routes.is_empty() {
            levels[level].routes.remove(&dst.addr());
            if levels[level].routes.is_empty() {
                levels.remove(level);
            }
        }
        self.len -= 1;
        route
    }

    /// Removes every route that `goes` names.
    pub(in crate::engine) fn extract(&mut self, goes: impl Fn(&Route) -> bool) -> Vec<Route> {
        let mut gone = Vec::new();
        for levels in [&mut self.v4, &mut self.v6] {
            for level in levels.iter_mut() {
                level.routes.retain(|_, routes| {
                    gone.extend(routes.extract_if(.., |route| goes(route)));
                    !routes.is_empty()
                });
            }
            levels.retain(|level| !level.routes.is_empty());
        }
        self.len -= gone.len();
        gone
    }

    /// Changes routes in place; prefix and metric must stay.
    pub(in crate::engine) fn update(&mut self, change: impl Fn(&mut Route)) {
        let levels = self.v4.iter_mut().chain(&mut self.v6);
        levels.flat_map(|level| level.routes.values_mut()).flatten().for_each(change);
    }

    /// The routes to exactly that prefix, to be changed in place; prefix and metric must stay.
    pub(in crate::engine) fn exact_mut(&mut self, dst: Cidr) -> &mut [Route] {
        let levels = self.levels_mut(dst.addr().is_ipv6());
        match levels.binary_search_by(|level| dst.prefix_len().cmp(&level.prefix_len)) {
            Ok(at) => levels[at].routes.get_mut(&dst.addr()).map_or(&mut [], Vec::as_mut_slice),
            Err(_) => &mut [],
        }
    }

    /// The routes to exactly that prefix by rising metric.
    pub(in crate::engine) fn exact(&self, dst: Cidr) -> &[Route] {
        let levels = self.levels(dst.addr().is_ipv6());
        match levels.binary_search_by(|level| dst.prefix_len().cmp(&level.prefix_len)) {
            Ok(at) => levels[at].routes.get(&dst.addr()).map_or(&[], Vec::as_slice),
            Err(_) => &[],
        }
    }

    /// The routes whose prefix has `dst`, the longest prefix first, then by rising metric.
    pub(in crate::engine) fn matches(&self, dst: IpAddr) -> impl Iterator<Item = &Route> {
        let levels = self.levels(dst.is_ipv6()).iter();
        levels.filter_map(move |level| level.routes.get(&mask(dst, level.prefix_len))).flatten()
    }

    /// How many routes there are.
    pub(in crate::engine) fn len(&self) -> usize {
        self.len
    }

    /// All routes in no particular order.
    pub(in crate::engine) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.v4.iter().chain(&self.v6).flat_map(|level| level.routes.values()).flatten()
    }

    /// Up to `limit` prefixes of a family in order, those behind `after` only, each with its routes.
    pub(in crate::engine) fn after(
        &self,
        ipv6: bool,
        after: Option<Cidr>,
        limit: usize,
    ) -> Vec<(Cidr, &[Route])> {
        // Linux's order: rising address, the longer prefix first.
        let key = |dst: Cidr| (dst.addr(), u8::MAX - dst.prefix_len());
        let mut found: Vec<_> = self
            .levels(ipv6)
            .iter()
            .flat_map(|level| level.routes.values())
            .filter_map(|routes| Some((routes.first()?.dst, routes.as_slice())))
            .filter(|(dst, _)| after.is_none_or(|after| key(*dst) > key(after)))
            .collect();
        if found.len() > limit {
            found.select_nth_unstable_by_key(limit, |(dst, _)| key(*dst));
            found.truncate(limit);
        }
        found.sort_unstable_by_key(|(dst, _)| key(*dst));
        found
    }

    fn levels(&self, ipv6: bool) -> &[Level] {
        if ipv6 { &self.v6 } else { &self.v4 }
    }

    fn levels_mut(&mut self, ipv6: bool) -> &mut Vec<Level> {
        if ipv6 { &mut self.v6 } else { &mut self.v4 }
    }
}
