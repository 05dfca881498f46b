//! nftables in the kernel's words: messages of NFNL_SUBSYS_NFTABLES, gathered into one batch that the kernel takes
//! whole or not at all.
//!
//! Numbers are those of linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h; whole numbers in attributes are
//! big-endian. Every message is about one table. Not here: which rules there should be.

use crate::sys::socket::set_send_queue;
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;

/// What packets a table meets.
#[derive(Clone, Copy)]
pub(super) enum Family {
    /// NFPROTO_INET: IPv4 and IPv6.
    Inet = 1,
    /// NFPROTO_NETDEV: whatever comes in by an interface.
    Netdev = 5,
}

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u8 = 10;
/// NFNL_MSG_BATCH_BEGIN.
const BATCH_BEGIN: u16 = 16;
/// NFNL_MSG_BATCH_END.
const BATCH_END: u16 = 17;
/// NLMSG_ERROR, which is also how a success is acknowledged.
const ANSWER: u16 = 2;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// Bytes of a message's header.
const HEADER: usize = 16;
/// NFTA_LIST_ELEM.
const LIST_ELEMENT: u16 = 1;
/// Elements of one message: the list that holds them may have at most 65,535 bytes.
const ELEMENTS: usize = 512;
/// Bytes of a batch that a socket takes, beyond its own default: some tens of thousands of addresses.
const LARGEST: u32 = 16 << 20;
/// The sequence number of a batch's first message; what fails as a whole is answered under it.
const FIRST: u32 = 1;

/// enum nf_tables_msg_types.
#[derive(Clone, Copy)]
enum Message {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    NewSet = 9,
    NewElement = 12,
}

/// A type of key, as `nft` prints it, and its length in bytes.
#[derive(Clone, Copy)]
pub(super) struct Key {
    kind: u32,
    len: u32,
    /// Whether it is of a packet, and not of this host.
    on_the_wire: bool,
}

impl Key {
    /// `ipv4_addr`
    pub(super) const IPV4: Self = Self { kind: 7, len: 4, on_the_wire: true };
    /// `ipv6_addr`
    pub(super) const IPV6: Self = Self { kind: 8, len: 16, on_the_wire: true };
    /// `inet_service`
    pub(super) const PORT: Self = Self { kind: 13, len: 2, on_the_wire: true };
    /// `ifname`
    pub(super) const INTERFACE: Self = Self { kind: 41, len: 16, on_the_wire: false };
}

/// Where a chain hangs in the way of a packet.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// NF_INET_PRE_ROUTING (0), LOCAL_IN (1), FORWARD (2), LOCAL_OUT (3) or POST_ROUTING (4).
    pub(super) number: u32,
    /// Lower is earlier.
    pub(super) priority: i32,
}

/// What happens to a packet: NF_DROP, NF_ACCEPT.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// enum nft_meta_keys: facts about a packet that are not in it.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    InterfaceName = 6,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// enum nft_payload_bases.
#[derive(Clone, Copy)]
pub(super) enum Base {
    Network = 1,
    Transport = 2,
}

/// A socket to nftables in the calling thread's network namespace.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    set_send_queue(&socket, LARGEST)?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Messages for one table, in order.
pub(super) struct Batch {
    family: Family,
    table: String,
    bytes: Vec<u8>,
    /// What each message does, from the second on, for the error that names it.
    steps: Vec<String>,
    /// Where the last message begins.
    last: usize,
    sets: u32,
}

impl Batch {
    pub(super) fn new(family: Family, table: &str) -> Self {
        let mut batch =
            Self { family, table: table.to_owned(), bytes: Vec::new(), steps: Vec::new(), last: 0, sets: 0 };
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM.into(), |_| ());
        batch
    }

    /// Makes the table; there being one is fine.
    pub(super) fn add_table(&mut self) {
        self.step("adding the table", Message::NewTable, NLM_F_CREATE, |_| ());
    }

    /// Makes a table that ends with the socket that the batch is sent by, and that nobody else may change.
    pub(super) fn add_own_table(&mut self) {
        /// NFT_TABLE_F_OWNER.
        const OWNER: u32 = 2;
        self.step("adding the table", Message::NewTable, NLM_F_CREATE, |batch| batch.number(2, OWNER));
    }

    /// Makes the table; EEXIST where there is one.
    pub(super) fn add_first_table(&mut self) {
        self.step("adding the table", Message::NewTable, NLM_F_CREATE | NLM_F_EXCL, |_| ());
    }

    /// Deletes the table with all that is in it; ENOENT without one.
    pub(super) fn delete_table(&mut self) {
        self.step("deleting the table", Message::DelTable, 0, |_| ());
    }

    /// Makes a set of single keys, or of ranges, and fills it. An element that ends a range is the first key behind
    /// it.
    pub(super) fn add_set(&mut self, name: &str, key: Key, ranges: bool, elements: &[Element]) {
        /// NFT_SET_INTERVAL.
        const INTERVAL: u32 = 4;
        /// NFTNL_UDATA_SET_KEYBYTEORDER and BYTEORDER_HOST_ENDIAN of libnftnl: what nft(8) reads keys by.
        const BYTE_ORDER: u8 = 0;
        const HOST_ORDER: u32 = 1;
        self.sets += 1;
        let id = self.sets;
        self.step(&format!("adding set {name}"), Message::NewSet, NLM_F_CREATE, |batch| {
            batch.text(2, name);
            batch.number(3, if ranges { INTERVAL } else { 0 });
            batch.number(4, key.kind);
            batch.number(5, key.len);
            batch.number(10, id);
            if !key.on_the_wire {
                batch.attribute(13, |batch| {
                    batch.bytes.extend([BYTE_ORDER, 4]);
                    batch.bytes.extend(HOST_ORDER.to_ne_bytes());
                });
            }
        });
        for part in elements.chunks(ELEMENTS) {
            self.step(&format!("filling set {name}"), Message::NewElement, NLM_F_CREATE, |batch| {
                batch.text(2, name);
                batch.nested(3, |batch| part.iter().for_each(|element| element.write(batch)));
            });
        }
    }

    /// Makes a chain that accepts what its rules say nothing about.
    pub(super) fn add_chain(&mut self, name: &str, hook: Hook) {
        self.step(&format!("adding chain {name}"), Message::NewChain, NLM_F_CREATE, |batch| {
            batch.text(3, name);
            batch.nested(4, |batch| {
                batch.number(1, hook.number);
                batch.number(2, hook.priority.cast_unsigned());
            });
            batch.number(5, Verdict::Accept as u32);
            batch.text(7, hook.kind);
        });
    }

    /// Makes a chain that drops whatever comes in by the interface called `name`, behind packet sockets and before the
    /// host's own stack; it is called like it.
    pub(super) fn add_ingress(&mut self, name: &str) {
        /// NF_NETDEV_INGRESS.
        const INGRESS: u32 = 0;
        self.step(&format!("adding chain {name}"), Message::NewChain, NLM_F_CREATE, |batch| {
            batch.text(3, name);
            batch.nested(4, |batch| {
                batch.number(1, INGRESS);
                batch.number(2, 0);
                batch.text(3, name);
            });
            batch.number(5, Verdict::Drop as u32);
            batch.text(7, "filter");
        });
    }

    /// Deletes a chain; ENOENT without one.
    pub(super) fn delete_chain(&mut self, name: &str) {
        self.step(&format!("deleting chain {name}"), Message::DelChain, 0, |batch| batch.text(3, name));
    }

    /// Puts a rule behind those of `chain`.
    pub(super) fn add_rule(&mut self, chain: &str, rule: impl FnOnce(Rule<'_>)) {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.step(&format!("adding a rule to chain {chain}"), Message::NewRule, flags, |batch| {
            batch.text(2, chain);
            batch.nested(4, |batch| rule(Rule(batch)));
        });
    }

    /// Hands everything over to the calling thread's network namespace. The kernel does all of it or nothing; the
    /// error has the kernel's kind and says which step it was.
    pub(super) fn commit(self) -> io::Result<()> {
        self.commit_by(&mut open()?)
    }

    /// The same by `socket`, which was opened in that namespace; of one that failed nothing more is to be sent.
    pub(super) fn commit_by(mut self, socket: &mut Socket) -> io::Result<()> {
        // One acknowledgement: that of the last step. It is given when all is done.
        let last = FIRST + u32::try_from(self.steps.len()).unwrap_or(u32::MAX - FIRST);
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.message(BATCH_END, 0, 0, SUBSYSTEM.into(), |_| ());

        let sent = socket.send(&self.bytes, 0)?;
        if sent < self.bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        loop {
            let (bytes, _) = match socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let garbled = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                let answer = NetlinkBuffer::new_checked(rest).map_err(garbled)?;
                let (number, kind) = (answer.sequence_number(), answer.message_type());
                let code = answer.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                let len = usize::try_from(answer.length()).unwrap_or(usize::MAX);
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
                if kind != ANSWER {
                    continue;
                }
                if code != 0 {
                    return Err(self.failure(number, code));
                }
                if number == last {
                    return Ok(());
                }
            }
        }
    }

    fn failure(&self, number: u32, code: i32) -> io::Error {
        let error = io::Error::from_raw_os_error(code.saturating_neg());
        let step = number.checked_sub(FIRST + 1).and_then(|at| self.steps.get(usize::try_from(at).ok()?));
        let step = step.map_or("committing the batch", String::as_str);
        io::Error::new(error.kind(), format!("nftables, {step}: {error}"))
    }

    /// One message about the table.
    fn step(&mut self, what: &str, message: Message, flags: u16, body: impl FnOnce(&mut Self)) {
        self.steps.push(what.to_owned());
        let kind = u16::from(SUBSYSTEM) << 8 | message as u16;
        let table = self.table.clone();
        self.message(kind, flags, self.family as u8, 0, |batch| {
            batch.text(1, &table);
            body(batch);
        });
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, about: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.last = start;
        let number = FIRST + u32::try_from(self.steps.len()).unwrap_or(u32::MAX - FIRST);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        // The sender: the kernel fills it in.
        self.bytes.extend([0; 4]);
        debug_assert_eq!(self.bytes.len(), start + HEADER);
        // struct nfgenmsg: the family, NFNETLINK_V0, the subsystem of a batch.
        self.bytes.extend([family, 0]);
        self.bytes.extend(about.to_be_bytes());
        body(self);
        let len = u32::try_from(self.bytes.len() - start).expect("a message is made of parts that fit");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        body(self);
        let len = u16::try_from(self.bytes.len() - start).expect("lists are sent in parts that fit");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, |batch| batch.bytes.extend(value.to_be_bytes()));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |batch| {
            batch.bytes.extend(value.bytes());
            batch.bytes.push(0);
        });
    }

    /// A nested NFTA_DATA_VALUE.
    fn value(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |batch| batch.attribute(1, |batch| batch.bytes.extend(value)));
    }
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// The key, in the order of the wire.
    pub(super) key: Vec<u8>,
    /// Whether a range ends before it.
    pub(super) end: bool,
}

impl Element {
    fn write(&self, batch: &mut Batch) {
        /// NFT_SET_ELEM_INTERVAL_END.
        const END: u32 = 1;
        batch.nested(LIST_ELEMENT, |batch| {
            batch.value(1, &self.key);
            if self.end {
                batch.number(3, END);
            }
        });
    }
}

/// The expressions of one rule, in order: each goes on with what those before have found, or ends the rule.
pub(super) struct Rule<'a>(&'a mut Batch);

impl Rule<'_> {
    /// NFT_REG_1, 16 bytes, through which all facts go.
    const REGISTER: u32 = 1;

    fn expression(self, name: &str, body: impl FnOnce(&mut Batch)) -> Self {
        self.0.nested(LIST_ELEMENT, |batch| {
            batch.text(1, name);
            batch.nested(2, body);
        });
        self
    }

    /// Loads a fact about the packet.
    pub(super) fn meta(self, key: Meta) -> Self {
        self.expression("meta", |batch| {
            batch.number(1, Self::REGISTER);
            batch.number(2, key as u32);
        })
    }

    /// Loads `len` bytes of a header, from `offset` on.
    pub(super) fn payload(self, base: Base, offset: u32, len: u32) -> Self {
        self.expression("payload", |batch| {
            batch.number(1, Self::REGISTER);
            batch.number(2, base as u32);
            batch.number(3, offset);
            batch.number(4, len);
        })
    }

    /// Loads what the destination is to this host: a route type of rtnetlink(7), RTN_UNICAST and so on.
    pub(super) fn destination_type(self) -> Self {
        /// NFT_FIB_RESULT_ADDRTYPE and NFTA_FIB_F_DADDR.
        const ADDRESS_TYPE: u32 = 3;
        const DESTINATION: u32 = 2;
        self.expression("fib", |batch| {
            batch.number(1, Self::REGISTER);
            batch.number(2, ADDRESS_TYPE);
            batch.number(3, DESTINATION);
        })
    }

    /// Ends the rule unless what was loaded is `value`.
    pub(super) fn is(self, value: &[u8]) -> Self {
        /// NFT_CMP_EQ.
        const EQUAL: u32 = 0;
        self.expression("cmp", |batch| {
            batch.number(1, Self::REGISTER);
            batch.number(2, EQUAL);
            batch.value(3, value);
        })
    }

    /// Ends the rule unless what was loaded is in `set`, or with `inverted` unless it is not.
    pub(super) fn lookup(self, set: &str, inverted: bool) -> Self {
        /// NFT_LOOKUP_F_INV.
        const INVERTED: u32 = 1;
        self.expression("lookup", |batch| {
            batch.text(1, set);
            batch.number(2, Self::REGISTER);
            if inverted {
                batch.number(5, INVERTED);
            }
        })
    }

    /// Counts the packet.
    pub(super) fn counter(self) -> Self {
        self.expression("counter", |_| ())
    }

    /// The end: gives the connection an address of this host as its source.
    pub(super) fn masquerade(self) {
        self.expression("masq", |_| ());
    }

    /// The end: what happens to the packet.
    pub(super) fn verdict(self, verdict: Verdict) {
        /// NFT_REG_VERDICT.
        const REGISTER: u32 = 0;
        self.expression("immediate", |batch| {
            batch.number(1, REGISTER);
            batch.nested(2, |batch| batch.nested(2, |batch| batch.number(1, verdict as u32)));
        });
    }
}
