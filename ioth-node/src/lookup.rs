//! Requests about names, answered by the node's own settings.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ioth::{Errno, SockAddr};
use ioth_node_proto::{AddrInfo, Item, Op, Reply, Request, Wanted, wanted_names};

use crate::control::Conversation;
use crate::names::hosts::{Family, Host};
use crate::names::{Answer, HostError, LookupError, Names, Query};
use crate::row::RowWriter;
use crate::task::Task;

/// How many requests of one node may be under way at once; more are told to try again.
const MOST: usize = 256;

/// The names of a node, and how many requests about them are under way.
#[derive(Debug)]
pub(crate) struct Desk {
    names: Names,
    open: AtomicUsize,
}

impl Desk {
    pub(crate) fn new(names: Names) -> Arc<Desk> {
        Arc::new(Desk { names, open: AtomicUsize::new(0) })
    }

    /// A task that answers a request. It keeps the conversation from nothing, which owns it.
    pub(crate) fn task(
        self: &Arc<Self>,
        request: &Request,
        payload: &[u8],
        conversation: &Arc<Conversation>,
    ) -> Task {
        let (op, args, payload) = (request.op, request.args, payload.to_vec());
        let (permit, conversation) = (Permit::take(self), Arc::downgrade(conversation));
        Task::new(async move {
            let (reply, payload) = match permit {
                Some(permit) => answer(&permit.0.names, op, args, &payload).await,
                None => busy(op),
            };
            if let Some(conversation) = conversation.upgrade() {
                conversation.answer_with(&reply, &payload);
            }
        })
    }
}

/// The right to one request.
struct Permit(Arc<Desk>);

impl Permit {
    fn take(desk: &Arc<Desk>) -> Option<Permit> {
        let free = |open| (open < MOST).then_some(open + 1);
        desk.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).ok()?;
        Some(Permit(desk.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

type Answered = (Reply, Vec<u8>);

async fn answer(names: &Names, op: Op, args: [i32; 4], payload: &[u8]) -> Answered {
    match op {
        Op::Lookup => of_lookup(addresses(names, args, payload).await),
        Op::HostByName => of_host(match (family(args[0]), std::str::from_utf8(payload)) {
            (Ok(family), Ok(name)) => names.host_by_name(name, family).await,
            (Err(error), _) => Err(error),
            // No source has a name that is not UTF-8.
            (_, Err(_)) => Err(HostError::NotFound),
        }),
        Op::HostByAddr => of_host(names.host_by_address(args[0], payload).await),
        Op::NameInfo => {
            let wanted = (args[1] & wanted_names::HOST != 0, args[1] & wanted_names::SERVICE != 0);
            of_name_info(names.of_address(payload, args[0], wanted).await)
        }
        Op::Resolve => resolve(names, args, payload).await,
        Op::Exchange => match names.exchange(payload).await {
            Ok(answer) => (Reply { result: answer.len() as i32, ..Reply::default() }, answer),
            Err(errno) => (failed(errno), Vec::new()),
        },
        _ => (failed(Errno::EPROTO), Vec::new()),
    }
}

async fn resolve(names: &Names, [class, rtype, search, _]: [i32; 4], payload: &[u8]) -> Answered {
    let name = std::str::from_utf8(payload).ok();
    let numbers = u16::try_from(class).ok().zip(u16::try_from(rtype).ok());
    let (error, errno, answer) = match name.zip(numbers) {
        // As res_mkquery(3), which cannot make a message of that.
        None => (HostError::NoRecovery, None, Vec::new()),
        Some((name, (class, rtype))) => match names.resolve(name, class, rtype, search == 1).await {
            Ok(answer) => return (Reply { result: answer.len() as i32, ..Reply::default() }, answer),
            Err(failed) => failed,
        },
    };
    let args = [error.code(), errno.map_or(0, |errno| errno as i32)];
    (Reply { result: answer.len() as i32, args, ..Reply::default() }, answer)
}

fn of_name_info(names: Result<(Option<String>, Option<String>), LookupError>) -> Answered {
    let (host, service) = match names {
        Ok(names) => names,
        Err(error) => return (lookup_failed(error), Vec::new()),
    };
    let mut row = RowWriter::default();
    if let Some(host) = &host {
        row.push(&Item::Name(host.as_bytes()));
    }
    if let Some(service) = &service {
        row.push(&Item::Service(service.as_bytes()));
    }
    (Reply::default(), row.into_bytes())
}

fn busy(op: Op) -> Answered {
    let reply = match op {
        Op::Lookup | Op::NameInfo => lookup_failed(LookupError::Again),
        Op::HostByName | Op::HostByAddr => host_failed(HostError::TryAgain),
        _ => failed(Errno::EAGAIN),
    };
    (reply, Vec::new())
}

async fn addresses(names: &Names, args: [i32; 4], payload: &[u8]) -> Result<Answer, LookupError> {
    let wanted = Wanted::parse(payload).ok_or(LookupError::System(Errno::EPROTO))?;
    // No source has a name that is not UTF-8.
    let text = |text: Option<_>| text.map(std::str::from_utf8).transpose().map_err(|_| LookupError::NoName);
    let [flags, family, kind, protocol] = args;
    let (host, service) = (text(wanted.host)?, text(wanted.service)?);
    names.addresses(Query { host, service, flags, family, kind, protocol }).await
}

fn of_lookup(answer: Result<Answer, LookupError>) -> Answered {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (lookup_failed(error), Vec::new()),
    };
    let mut row = RowWriter::default();
    if let Some(name) = &answer.canonical {
        row.push(&Item::Name(name.as_bytes()));
    }
    for found in &answer.found {
        let addr = SockAddr::from(found.addr);
        let (family, kind, protocol) = (addr.domain().0, found.kind, found.protocol);
        if !row.push(&Item::AddrInfo(AddrInfo { family, kind, protocol, addr: &addr.to_raw() })) {
            break;
        }
    }
    (Reply::default(), row.into_bytes())
}

fn of_host(host: Result<Host, HostError>) -> Answered {
    let host = match host {
        Ok(host) => host,
        Err(error) => return (host_failed(error), Vec::new()),
    };
    let mut row = RowWriter::default();
    row.push(&Item::Name(host.name.as_bytes()));
    // Addresses matter more than aliases when there is no room for all.
    for address in &host.addresses {
        let pushed = match address {
            IpAddr::V4(v4) => row.push(&Item::Address(&v4.octets())),
            IpAddr::V6(v6) => row.push(&Item::Address(&v6.octets())),
        };
        if !pushed {
            break;
        }
    }
    for alias in &host.aliases {
        row.push(&Item::Alias(alias.as_bytes()));
    }
    (Reply::default(), row.into_bytes())
}

fn lookup_failed(error: LookupError) -> Reply {
    let errno = if let LookupError::System(errno) = error { errno as i32 } else { 0 };
    Reply { result: error.code(), args: [errno, 0], ..Reply::default() }
}

fn host_failed(error: HostError) -> Reply {
    let errno = if let HostError::Internal(errno) = error { errno as i32 } else { 0 };
    Reply { result: error.code(), args: [errno, 0], ..Reply::default() }
}

fn failed(error: Errno) -> Reply {
    Reply { result: -(error as i32), ..Reply::default() }
}

fn family(family: i32) -> Result<Family, HostError> {
    match family {
        libc::AF_INET => Ok(Family::V4),
        libc::AF_INET6 => Ok(Family::V6),
        _ => Err(HostError::Internal(Errno::EAFNOSUPPORT)),
    }
}
