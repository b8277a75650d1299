//! DNS messages: what is asked, and what an answer says. Read RFC 1035 §4 and RFC 6891 first.

use std::net::IpAddr;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::name::ParsedName;
use domain::base::{Message, MessageBuilder, Name, RecordSection, ToName};
use domain::rdata::{A, Aaaa, Cname, Ptr};

use crate::names::hosts::Host;
use crate::names::is_hostname;

/// How long an answer over UDP may be, in bytes: what fits into every path's packets (RFC 9715 §3.1, R5).
const UDP_PAYLOAD: u16 = 1232;
/// How many aliases may lead to a name.
const LONGEST_CHAIN: usize = 16;
/// How many of an answer's aliases are looked at.
const MOST_ALIASES: usize = 64;
/// How many of an answer's addresses or names are taken.
const MOST_RECORDS: usize = 512;

/// A question as it is sent.
#[derive(Clone, Debug)]
pub struct Query {
    /// The whole message.
    pub(super) message: Vec<u8>,
    /// The same without EDNS, for servers that do not know it.
    pub(super) plain: Option<Vec<u8>>,
}

impl Query {
    /// A question with the id `id`.
    pub fn new(id: u16, name: &Name<Vec<u8>>, class: Class, rtype: Rtype) -> Query {
        let message = |edns| {
            let mut builder = MessageBuilder::new_vec();
            builder.header_mut().set_id(id);
            builder.header_mut().set_rd(true);
            let mut questions = builder.question();
            // A vector takes every question; what fails is sent without it, and not answered.
            let _ = questions.push((name, rtype, class));
            let mut additional = questions.additional();
            if edns {
                let _ = additional.opt(|opt| {
                    opt.set_udp_payload_size(UDP_PAYLOAD);
                    Ok(())
                });
            }
            additional.finish()
        };
        Query { message: message(true), plain: Some(message(false)) }
    }

    /// A message that somebody else made; `None` when it is too short or too long for one.
    pub fn from_message(message: &[u8]) -> Option<Query> {
        let fits = message.len() <= usize::from(u16::MAX) && Message::from_slice(message).is_ok();
        fits.then(|| Query { message: message.to_vec(), plain: None })
    }
}

/// What a message is that came from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not the answer to the question.
    Stranger,
    /// The answer was too long for a datagram.
    Truncated,
    /// The server cannot or does not want to answer: another one may.
    Rejected,
    /// The server does not understand the question, perhaps for its EDNS.
    NotUnderstood,
    /// The answer, good or bad.
    Answer,
}

/// Judges what came as an answer to `query`.
///
/// RFC 5452 §9.1: "A resolver implementation MUST match responses to all of the following attributes of the query".
/// Addresses and ports are the socket's to compare.
pub fn judge(query: &[u8], answer: &[u8]) -> Verdict {
    let (Ok(query), Ok(answer)) = (Message::from_slice(query), Message::from_slice(answer)) else {
        return Verdict::Stranger;
    };
    let header = answer.header();
    let rcode = header.rcode();
    if !header.qr() || header.id() != query.header().id() || header.opcode() != query.header().opcode() {
        return Verdict::Stranger;
    }
    // Whoever does not understand the question cannot repeat it.
    let without_question = answer.header_counts().qdcount() == 0;
    if [Rcode::FORMERR, Rcode::NOTIMP].contains(&rcode) && without_question {
        return Verdict::NotUnderstood;
    }
    if !answer.is_answer(query) {
        return Verdict::Stranger;
    }
    match rcode {
        _ if header.tc() => Verdict::Truncated,
        Rcode::FORMERR => Verdict::NotUnderstood,
        Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED => Verdict::Rejected,
        _ => Verdict::Answer,
    }
}

/// Why an answer gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The name has no records of this type.
    NoData,
    /// There is no such name.
    NotFound,
    /// The servers do not understand the question, or we the answer.
    NoRecovery,
    /// Every server rejected the question.
    Rejected,
    /// No server answered.
    Unreachable(ioth::Errno),
}

impl Failure {
    /// What two questions about one name came to: the failure that says least of the name.
    pub(super) fn worse(self, other: Failure) -> Failure {
        let rank = |failure| match failure {
            Failure::NoData => 0,
            Failure::NotFound => 1,
            Failure::NoRecovery => 2,
            Failure::Rejected => 3,
            Failure::Unreachable(_) => 4,
        };
        if rank(self) >= rank(other) { self } else { other }
    }
}

/// The host that an answer to a question of type A or AAAA gives.
///
/// # Errors
/// [`Failure`]
pub fn addresses(answer: &[u8]) -> Result<Host, Failure> {
    let answer = Message::from_slice(answer).map_err(|_| Failure::NoRecovery)?;
    let (question, mut host) = begin(answer)?;
    let records = answer.answer().map_err(|_| Failure::NoRecovery)?;
    let owner = follow(question, records, &mut host)?;
    match answer.qtype() {
        Some(Rtype::A) => {
            let found = records.limit_to_in::<A>().flatten().filter(|record| record.owner() == &owner);
            let found = found.map(|record| IpAddr::from(record.data().addr()));
            host.addresses.extend(found.take(MOST_RECORDS));
        }
        Some(Rtype::AAAA) => {
            let found = records.limit_to_in::<Aaaa>().flatten().filter(|record| record.owner() == &owner);
            let found = found.map(|record| IpAddr::from(record.data().addr()));
            host.addresses.extend(found.take(MOST_RECORDS));
        }
        _ => return Err(Failure::NoRecovery),
    }
    if host.addresses.is_empty() { Err(Failure::NoData) } else { Ok(host) }
}

/// The names that an answer to a question of type PTR gives.
///
/// # Errors
/// [`Failure`]
pub fn pointers(answer: &[u8]) -> Result<Host, Failure> {
    let answer = Message::from_slice(answer).map_err(|_| Failure::NoRecovery)?;
    let (question, mut host) = begin(answer)?;
    let records = answer.answer().map_err(|_| Failure::NoRecovery)?;
    let owner = follow(question, records, &mut host)?;
    let found = records.limit_to_in::<Ptr<_>>().flatten().filter(|record| record.owner() == &owner);
    let mut names = found.filter_map(|record| text(record.data().ptrdname()));
    // Aliases of the question are no names of the host.
    host.name = names.next().ok_or(Failure::NoData)?;
    host.aliases = names.take(MOST_RECORDS).collect();
    Ok(host)
}

/// Whether an answer has what was asked for.
///
/// # Errors
/// [`Failure`]
pub fn check(answer: &[u8]) -> Result<(), Failure> {
    let answer = Message::from_slice(answer).map_err(|_| Failure::NoRecovery)?;
    match answer.header().rcode() {
        Rcode::NOERROR if answer.header_counts().ancount() == 0 => Err(Failure::NoData),
        Rcode::NOERROR => Ok(()),
        Rcode::NXDOMAIN => Err(Failure::NotFound),
        Rcode::SERVFAIL => Err(Failure::Rejected),
        _ => Err(Failure::NoRecovery),
    }
}

type Parsed<'a> = ParsedName<&'a [u8]>;

/// The question of an answer without error, and a host of that name.
fn begin(answer: &Message<[u8]>) -> Result<(Parsed<'_>, Host), Failure> {
    check(answer.as_slice())?;
    let question = answer.sole_question().map_err(|_| Failure::NoRecovery)?.into_qname();
    let name = text(&question).ok_or(Failure::NoRecovery)?;
    Ok((question, Host { name, ..Host::default() }))
}

/// The name that aliases lead to, which become the host's.
fn follow<'a>(
    question: Parsed<'a>,
    records: RecordSection<'a, [u8]>,
    host: &mut Host,
) -> Result<Parsed<'a>, Failure> {
    let aliases = records.limit_to_in::<Cname<_>>().flatten().take(MOST_ALIASES);
    let aliases: Vec<_> = aliases.map(|record| (*record.owner(), *record.data().cname())).collect();
    let mut owner = question;
    for _ in 0..LONGEST_CHAIN {
        let Some((_, target)) = aliases.iter().find(|(alias, _)| *alias == owner) else { return Ok(owner) };
        owner = *target;
        // What is no host's name may be meant to be taken for something else.
        let name = text(&owner).ok_or(Failure::NoRecovery)?;
        host.aliases.push(std::mem::replace(&mut host.name, name));
    }
    Err(Failure::NoRecovery)
}

/// A host's name as text without the dot at its end; `None` for other names.
fn text(name: &Parsed<'_>) -> Option<String> {
    let text = name.to_name::<Vec<u8>>().to_string();
    // The root's name is a dot.
    let text = text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(&text);
    is_hostname(text).then(|| text.to_owned())
}
