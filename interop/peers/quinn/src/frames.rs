//! Carried frames of kaudp (spec/kaudp.md, sections 3 and 14.1) and who answers which; no I/O.
//!
//! Written from the specification alone: it shares nothing with the library or the other peers.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

const INIT: u8 = 0x01;
const RESPONSE: u8 = 0x02;
const PROBE: u8 = 0x08;
const REPLY: u8 = 0x09;
const CLOSE: u8 = 0x0a;

const PAD: u8 = 0x00;
const ADDRESS_SEEN: u8 = 0x01;
const PARAMETERS: u8 = 0x02;
const CLOSE_REASON: u8 = 0x05;

const UP: u8 = 1;
const CLOSED: u8 = 6;

const HANDSHAKE_BYTES: usize = 52;
const TRANSPORT_BYTES: usize = 48;
const MAX_FRAME_BYTES: usize = 512;
const MAX_OPTIONS: usize = 16;
/// A side keeps this many sessions of a connection; each new INIT makes one.
const MAX_SESSIONS: usize = 8;

type Id = [u8; 8];

/// What came is no frame, or not one to act on.
pub struct Refused;

/// An answer, if there is one, and the lines to print.
pub type Outcome = (Option<Vec<u8>>, Vec<String>);

/// The canonical bytes of an address (9.2).
pub fn canonical(address: SocketAddr) -> Vec<u8> {
    let ip = match address.ip() {
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => [a, b, c, d].into(),
            _ => IpAddr::V6(v6),
        },
        v4 => v4,
    };
    let mut bytes = vec![if ip.is_ipv4() { 4 } else { 6 }];
    bytes.extend(address.port().to_be_bytes());
    match ip {
        IpAddr::V4(v4) => bytes.extend(v4.octets()),
        IpAddr::V6(v6) => bytes.extend(v6.octets()),
    }
    bytes
}

fn ignored(total: u64) -> String {
    format!(r#"{{"event":"ignored","total":{total}}}"#)
}

fn random8() -> Id {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random bytes");
    bytes
}

fn head(kind: u8, id: Id) -> Vec<u8> {
    [&[0x0b, kind, 0x81, 0x00], &id[..]].concat()
}

fn option(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, value.len() as u8], value].concat()
}

fn id_at(bytes: &[u8], at: usize) -> Id {
    bytes[at..at + 8].try_into().expect("8 bytes")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Willing to be probed at any pace; 3 suspicion probes at once, then 100 ms apart; no features.
fn parameters(desired_interval_us: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in [desired_interval_us, 0, 100_000] {
        bytes.extend(value.to_be_bytes());
    }
    bytes.extend([0, 3, 0, 0]);
    bytes
}

fn check(holds: bool) -> Result<(), Refused> {
    holds.then_some(()).ok_or(Refused)
}

fn legal_parameters(bytes: &[u8]) -> bool {
    u32_at(bytes, 0) != 0 && bytes[12..14] != [0, 0]
}

fn known(kind: u8) -> bool {
    (ADDRESS_SEEN..=0x07).contains(&kind)
}

fn legal_option(kind: u8, value: &[u8]) -> bool {
    match (kind, value.len()) {
        (ADDRESS_SEEN, 7) => value[0] == 4,
        (ADDRESS_SEEN, 19) => value[0] == 6,
        (PARAMETERS, 16) => legal_parameters(value),
        (0x03 | 0x04, 4) | (CLOSE_REASON, 2) | (0x06 | 0x07, 8) => true,
        _ => !known(kind) && kind < 0x80,
    }
}

/// Checks the options of a frame; the value of CLOSE_REASON, which CLOSE and only CLOSE holds.
fn parse_options(mut bytes: &[u8], closing: bool) -> Result<u16, Refused> {
    let mut seen = Vec::new();
    let mut reason = None;
    while let [kind, rest @ ..] = bytes {
        let (length, rest) = rest.split_first().ok_or(Refused)?;
        check(seen.len() < MAX_OPTIONS && rest.len() >= usize::from(*length))?;
        let (value, rest) = rest.split_at(usize::from(*length));
        check(legal_option(*kind, value) && !(known(*kind) && seen.contains(kind)))?;
        if *kind == CLOSE_REASON {
            reason = Some(u16::from_be_bytes([value[0], value[1]]));
        }
        seen.push(*kind);
        bytes = rest;
    }
    check(reason.is_some() == closing)?;
    Ok(reason.unwrap_or(0))
}

/// The type of a carried frame whose length and first four bytes are legal (14.1).
fn frame_type(frame: &[u8]) -> Result<u8, Refused> {
    let least = match frame.get(..4) {
        Some([0x0b, INIT | RESPONSE, 0x81, 0]) => HANDSHAKE_BYTES,
        Some([0x0b, PROBE | REPLY | CLOSE, 0x81, 0]) => TRANSPORT_BYTES,
        _ => return Err(Refused),
    };
    check((least..=MAX_FRAME_BYTES).contains(&frame.len()))?;
    Ok(frame[1])
}

/// One side of a session: what it has sent and received, and its answers.
pub struct Session {
    /// Closed, and the other side knows: what still comes is ignored.
    pub over: bool,
    pub sent: u64,
    pub confirmed: u64,
    pub replies: u64,
    peer: Id,
    origin: Instant,
    state: u8,
    begun: bool,
    highest: u64,
    highest_sent_time: u32,
    highest_arrived: u128,
    received_count: u32,
    control_seen: u8,
}

impl Session {
    fn new(peer: Id) -> Self {
        Session {
            over: false,
            sent: 0,
            confirmed: 0,
            replies: 0,
            peer,
            origin: Instant::now(),
            state: UP,
            begun: false,
            highest: 0,
            highest_sent_time: 0,
            highest_arrived: 0,
            received_count: 0,
            control_seen: 0,
        }
    }

    pub fn probe(&mut self, address: &[u8]) -> Vec<u8> {
        self.build(PROBE, address, &[])
    }

    pub fn close(&mut self, address: &[u8]) -> Vec<u8> {
        self.state = CLOSED;
        self.build(CLOSE, address, &option(CLOSE_REASON, &[0, 0]))
    }

    /// The next frame, to a receiver whose canonical address is `address`.
    fn build(&mut self, kind: u8, address: &[u8], options: &[u8]) -> Vec<u8> {
        self.sent += 1;
        let now = self.now_us();
        let hold = match self.highest {
            0 => 0,
            _ => (now - self.highest_arrived).min(u128::from(u32::MAX)),
        };
        let hash = digest::digest(&digest::SHA256, &[&self.peer, address].concat());
        let mut frame = head(kind, self.peer);
        frame.extend(self.sent.to_be_bytes());
        frame.extend([self.state, 0, 0, self.control_seen]);
        for value in [
            now as u32,
            self.highest_sent_time,
            hold as u32,
            self.highest as u32,
            self.received_count,
        ] {
            frame.extend(value.to_be_bytes());
        }
        frame.extend(&hash.as_ref()[..4]);
        frame.extend(options);
        frame
    }

    /// Accepts a transport frame of this session.
    fn receive(&mut self, frame: &[u8], address: &[u8]) -> Result<Outcome, Refused> {
        let now = self.now_us();
        let number = u64::from_be_bytes(id_at(frame, 12));
        check((1..=u64::from(u32::MAX)).contains(&number))?;
        // QUIC drops replays (RFC 9000, section 12.3), so each frame that comes counts once.
        self.received_count += 1;
        if number > self.highest {
            self.highest = number;
            self.highest_sent_time = u32_at(frame, 24);
            self.highest_arrived = now;
            self.control_seen = frame[22];
        }
        let state = frame[20];
        let confirms = u64::from(u32_at(frame, 36));
        check((1..=6).contains(&state) && confirms <= self.sent)?;
        let reason = parse_options(&frame[TRANSPORT_BYTES..], frame[1] == CLOSE)?;
        if self.over {
            return Ok((None, vec![]));
        }
        Ok(match frame[1] {
            CLOSE => {
                self.state = CLOSED;
                self.over = true;
                let line = format!(r#"{{"event":"close","reason":{reason}}}"#);
                (Some(self.build(REPLY, address, &[])), vec![line])
            }
            _ if state == CLOSED => {
                self.over = true;
                (None, vec![])
            }
            REPLY => (None, vec![self.reply(number, confirms, frame, now as u32)]),
            _ => self.answer(number, frame.len(), address),
        })
    }

    fn answer(&mut self, number: u64, room: usize, address: &[u8]) -> Outcome {
        let line = format!(r#"{{"event":"probe","packet_number":{number}}}"#);
        let mut options = option(ADDRESS_SEEN, address);
        if room < TRANSPORT_BYTES + options.len() {
            options.clear();
        }
        (Some(self.build(REPLY, address, &options)), vec![line])
    }

    fn reply(&mut self, number: u64, confirms: u64, frame: &[u8], now: u32) -> String {
        let age = now.wrapping_sub(u32_at(frame, 28));
        let hold = u32_at(frame, 32);
        // Only evidence gives a sample (10.1).
        let rtt = if confirms > self.confirmed && hold < u32::MAX && age >= hold {
            (age - hold).to_string()
        } else {
            "null".to_string()
        };
        self.confirmed = self.confirmed.max(confirms);
        self.replies += 1;
        format!(r#"{{"event":"reply","packet_number":{number},"rtt_us":{rtt}}}"#)
    }

    fn now_us(&self) -> u128 {
        self.origin.elapsed().as_micros()
    }
}

/// The side of a connection that answers INIT.
pub struct Responder {
    ignored: u64,
    instance: Id,
    epoch: Id,
    /// Oldest first; with each, its own id, the INIT that made it and the answer.
    sessions: VecDeque<(Id, Vec<u8>, Vec<u8>, Session)>,
}

impl Responder {
    pub fn new() -> Self {
        Responder {
            ignored: 0,
            instance: random8(),
            epoch: random8(),
            sessions: VecDeque::new(),
        }
    }

    /// Takes what came in a DATAGRAM frame; garbage is counted and changes nothing.
    pub fn receive(&mut self, frame: &[u8], address: &[u8]) -> Outcome {
        self.accept(frame, address).unwrap_or_else(|Refused| {
            self.ignored += 1;
            (None, vec![ignored(self.ignored)])
        })
    }

    fn accept(&mut self, frame: &[u8], address: &[u8]) -> Result<Outcome, Refused> {
        match frame_type(frame)? {
            INIT => Ok((Some(self.respond(frame, address)?), vec![])),
            RESPONSE => Err(Refused),
            _ => {
                let id = id_at(frame, 4);
                let found = self.sessions.iter_mut().find(|(own, ..)| *own == id);
                let session = &mut found.ok_or(Refused)?.3;
                let (answer, mut lines) = session.receive(frame, address)?;
                if frame[1] == PROBE && !session.begun {
                    session.begun = true;
                    lines.insert(0, r#"{"event":"session"}"#.to_string());
                }
                if frame[1] == REPLY {
                    // It counts as received; but this side never asks.
                    lines.clear();
                }
                Ok((answer, lines))
            }
        }
    }

    fn respond(&mut self, init: &[u8], address: &[u8]) -> Result<Vec<u8>, Refused> {
        if let Some((_, _, response, _)) = self.sessions.iter().find(|(_, of, ..)| of == init) {
            return Ok(response.clone());
        }
        check(init[20..28] != self.epoch && legal_parameters(&init[36..HANDSHAKE_BYTES]))?;
        parse_options(&init[HANDSHAKE_BYTES..], false)?;
        if self.sessions.len() == MAX_SESSIONS {
            self.sessions.pop_front();
        }
        let (peer, own) = (id_at(init, 4), random8());
        let mut response = head(RESPONSE, peer);
        for part in [own, self.instance, self.epoch] {
            response.extend(part);
        }
        response.extend(parameters(1_000_000));
        // A RESPONSE is never longer than its INIT (4.3), so ADDRESS_SEEN needs room there.
        let seen = option(ADDRESS_SEEN, address);
        if response.len() + seen.len() <= init.len() {
            response.extend(seen);
        }
        let session = Session::new(peer);
        self.sessions
            .push_back((own, init.to_vec(), response.clone(), session));
        Ok(response)
    }
}

/// The side of a connection that sends INIT: one session, once.
pub struct Initiator {
    ignored: u64,
    pub interval_us: u32,
    /// The same bytes at each retry.
    pub init: Vec<u8>,
    pub session: Option<Session>,
    id: Id,
}

impl Initiator {
    pub fn new(interval_us: u32) -> Self {
        let id = random8();
        let init = [
            head(INIT, id),
            [random8(), random8(), [0; 8]].concat(),
            parameters(interval_us),
            // Makes room for ADDRESS_SEEN in the RESPONSE.
            option(PAD, &[0; 19]),
        ];
        Initiator {
            ignored: 0,
            interval_us,
            init: init.concat(),
            session: None,
            id,
        }
    }

    /// Takes what came in a DATAGRAM frame; garbage is counted and changes nothing.
    pub fn receive(&mut self, frame: &[u8], address: &[u8]) -> Outcome {
        self.accept(frame, address).unwrap_or_else(|Refused| {
            self.ignored += 1;
            (None, vec![ignored(self.ignored)])
        })
    }

    fn accept(&mut self, frame: &[u8], address: &[u8]) -> Result<Outcome, Refused> {
        let kind = frame_type(frame)?;
        check(id_at(frame, 4) == self.id)?;
        match (kind, &mut self.session) {
            (RESPONSE, None) => {
                check(legal_parameters(&frame[36..HANDSHAKE_BYTES]))?;
                parse_options(&frame[HANDSHAKE_BYTES..], false)?;
                self.interval_us = self.interval_us.max(u32_at(frame, 40)).max(10_000);
                self.session = Some(Session::new(id_at(frame, 12)));
                Ok((None, vec![r#"{"event":"response"}"#.to_string()]))
            }
            (PROBE | REPLY | CLOSE, Some(session)) => session.receive(frame, address),
            _ => Err(Refused),
        }
    }
}
