// Carried frames of kaudp (spec/kaudp.md, sections 3 and 14.1) and who answers which; no I/O.
//
// Written from the specification alone: it shares nothing with the library or the other peers.

import { createHash, randomBytes } from 'node:crypto';
import { isIPv4 } from 'node:net';
import { hrtime } from 'node:process';

export const PROBE = 0x08;
export const CLOSE = 0x0a;
export const CLOSE_REASON = 0x05;

const INIT = 0x01;
const RESPONSE = 0x02;
const REPLY = 0x09;
const ADDRESS_SEEN = 0x01;
const PARAMETERS = 0x02;
const UP = 1;
const CLOSED = 6;

const LEAST_BYTES = { [INIT]: 52, [RESPONSE]: 52, [PROBE]: 48, [REPLY]: 48, [CLOSE]: 48 };
const MAX_FRAME_BYTES = 512;
const MAX_OPTIONS = 16;
const OPTION_BYTES = { 1: [7, 19], 2: [16], 3: [4], 4: [4], 5: [2], 6: [8], 7: [8] };
// A side keeps this many sessions of a connection; each new INIT makes one.
const MAX_SESSIONS = 8;
const U32 = 2 ** 32;

// What came is no frame, or not one to act on.
class Refused extends Error {}

const head = (kind, id) => Buffer.concat([Buffer.from([0x0b, kind, 0x81, 0]), id]);

export const option = (kind, value) => Buffer.concat([Buffer.from([kind, value.length]), value]);

// The canonical bytes of an address (9.2).
export function canonical({ host, port }) {
  const plain = host.replace(/^::ffff:(?=\d+\.)/i, '');
  const address = isIPv4(plain) ? Buffer.from(plain.split('.').map(Number)) : ipv6Bytes(plain);
  return Buffer.from([address.length === 4 ? 4 : 6, port >> 8, port & 0xff, ...address]);
}

function ipv6Bytes(text) {
  const words = (part) => (part ? part.split(':').map((word) => parseInt(word, 16)) : []);
  const [left, right] = text.split('%')[0].split('::').map(words);
  const zeros = right === undefined ? [] : Array(8 - left.length - right.length).fill(0);
  return [...left, ...zeros, ...(right ?? [])].flatMap((word) => [word >> 8, word & 0xff]);
}

function parameters(desiredIntervalUs) {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(desiredIntervalUs, 0);
  // Willing to be probed at any pace (0); 3 suspicion probes at once, then 100 ms apart.
  bytes.writeUInt32BE(100_000, 8);
  bytes.writeUInt16BE(3, 12);
  return bytes;
}

function checkParameters(bytes) {
  if (bytes.readUInt32BE(0) === 0 || bytes.readUInt16BE(12) === 0) {
    throw new Refused('parameter out of range');
  }
}

function checkOption(kind, value) {
  if (kind >= 0x80) throw new Refused('unknown critical option');
  if (kind in OPTION_BYTES && !OPTION_BYTES[kind].includes(value.length)) {
    throw new Refused('length of an option');
  }
  if (kind === ADDRESS_SEEN && value[0] !== (value.length === 7 ? 4 : 6)) {
    throw new Refused('family of an address');
  }
  if (kind === PARAMETERS) checkParameters(value);
}

// The options of a frame by type; of those that may stand twice, the last.
function parseOptions(bytes, closing = false) {
  const options = new Map();
  let count = 0;
  for (let at = 0; at < bytes.length; ) {
    count += 1;
    const end = at + 2 + bytes[at + 1];
    // A lone type byte has no length: `end` is then NaN, and the comparison false.
    if (count > MAX_OPTIONS || !(end <= bytes.length)) throw new Refused('options');
    const kind = bytes[at];
    const value = bytes.subarray(at + 2, end);
    checkOption(kind, value);
    if (options.has(kind) && kind in OPTION_BYTES) throw new Refused('option stands twice');
    options.set(kind, value);
    at = end;
  }
  if (options.has(CLOSE_REASON) !== closing) throw new Refused('close reason');
  return options;
}

// The type of a carried frame whose length and first four bytes are legal (14.1).
function frameType(frame) {
  const [magic, kind, version, last] = frame;
  const fits = frame.length >= LEAST_BYTES[kind] && frame.length <= MAX_FRAME_BYTES;
  if (!fits || magic !== 0x0b || version !== 0x81 || last !== 0) throw new Refused('no frame');
  return kind;
}

// One side of a session: what it has sent and received, and its answers.
export class Session {
  sent = 0;
  confirmed = 0;
  replies = 0;
  // Closed, and the other side knows: what still comes is ignored.
  over = false;
  #state = UP;
  #origin = hrtime.bigint();
  #highest = 0;
  #highestSentTime = 0;
  #highestArrived = 0;
  #receivedCount = 0;
  #controlSeen = 0;
  #peerId;

  constructor(peerId) {
    this.#peerId = peerId;
  }

  // The next frame, to a receiver whose canonical address is `address`.
  build(kind, address, options = Buffer.alloc(0)) {
    this.sent += 1;
    if (kind === CLOSE) this.#state = CLOSED;
    const now = this.#nowUs();
    const frame = Buffer.alloc(48);
    head(kind, this.#peerId).copy(frame);
    frame.writeBigUInt64BE(BigInt(this.sent), 12);
    frame[20] = this.#state;
    frame[23] = this.#controlSeen;
    frame.writeUInt32BE(now % U32, 24);
    frame.writeUInt32BE(this.#highestSentTime, 28);
    const hold = this.#highest ? Math.min(now - this.#highestArrived, U32 - 1) : 0;
    frame.writeUInt32BE(hold, 32);
    frame.writeUInt32BE(this.#highest, 36);
    frame.writeUInt32BE(this.#receivedCount, 40);
    const hash = createHash('sha256').update(this.#peerId).update(address).digest();
    hash.copy(frame, 44, 0, 4);
    return Buffer.concat([frame, options]);
  }

  // Accept a transport frame of this session; returns the answer and what happened.
  receive(frame, address) {
    const kind = frame[1];
    const now = this.#nowUs();
    const number = frame.readBigUInt64BE(12);
    if (number < 1n || number >= BigInt(U32)) throw new Refused('packet number');
    // QUIC drops replays (RFC 9000, section 12.3), so each frame that comes counts once.
    this.#receivedCount += 1;
    if (number > this.#highest) {
      this.#highest = Number(number);
      this.#highestSentTime = frame.readUInt32BE(24);
      this.#highestArrived = now;
      this.#controlSeen = frame[22];
    }
    const state = frame[20];
    const confirms = frame.readUInt32BE(36);
    if (state < 1 || state > 6 || confirms > this.sent) throw new Refused('body');
    const options = parseOptions(frame.subarray(48), kind === CLOSE);
    if (this.over) return {};
    if (kind === CLOSE) {
      this.#state = CLOSED;
      this.over = true;
      const reason = options.get(CLOSE_REASON).readUInt16BE();
      return { answer: this.build(REPLY, address), events: [{ event: 'close', reason }] };
    }
    if (state === CLOSED) {
      this.over = true;
      return {};
    }
    if (kind === REPLY) return { events: [this.#reply(Number(number), confirms, frame, now)] };
    const seen = option(ADDRESS_SEEN, address);
    const room = frame.length >= 48 + seen.length;
    return {
      answer: this.build(REPLY, address, room ? seen : undefined),
      events: [{ event: 'probe', packet_number: Number(number) }],
    };
  }

  #reply(number, confirms, frame, now) {
    const hold = frame.readUInt32BE(32);
    const age = (((now - frame.readUInt32BE(28)) % U32) + U32) % U32;
    // Only evidence gives a sample (10.1).
    const sampled = confirms > this.confirmed && hold < U32 - 1 && age >= hold;
    this.confirmed = Math.max(this.confirmed, confirms);
    this.replies += 1;
    return { event: 'reply', packet_number: number, rtt_us: sampled ? age - hold : null };
  }

  #nowUs() {
    return Number((hrtime.bigint() - this.#origin) / 1000n);
  }
}

// What both sides have in common: identity, parameters, sessions by the id that this side chose.
class Side {
  instanceId = randomBytes(8);
  epoch = randomBytes(8);
  sessions = new Map();
  #ignored = 0;

  constructor(desiredIntervalUs) {
    this.parameters = parameters(desiredIntervalUs);
  }

  // Take what came in a DATAGRAM frame; garbage is counted and changes nothing.
  receive(frame, address) {
    try {
      return this.accept(frameType(frame), frame, address);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#ignored += 1;
      return { events: [{ event: 'ignored', total: this.#ignored }] };
    }
  }

  accept(kind, frame, address) {
    const session = this.sessions.get(frame.toString('hex', 4, 12));
    if (kind === INIT || kind === RESPONSE || !session) throw new Refused('no session');
    return session.receive(frame, address);
  }
}

// The side of a connection that answers INIT.
export class Responder extends Side {
  #responses = new Map();
  #begun = new Set();

  constructor() {
    super(1_000_000);
  }

  accept(kind, frame, address) {
    if (kind === INIT) return { answer: this.#respond(frame, address) };
    const { answer, events = [] } = super.accept(kind, frame, address);
    // It counts as received; but this side never asks.
    if (kind === REPLY) return {};
    const id = frame.toString('hex', 4, 12);
    if (kind === PROBE && !this.#begun.has(id)) {
      this.#begun.add(id);
      events.unshift({ event: 'session' });
    }
    return { answer, events };
  }

  #respond(init, address) {
    const key = init.toString('hex');
    if (this.#responses.has(key)) return this.#responses.get(key);
    if (init.subarray(20, 28).equals(this.epoch)) throw new Refused('reflection');
    checkParameters(init.subarray(36, 52));
    parseOptions(init.subarray(52));
    if (this.sessions.size === MAX_SESSIONS) {
      const [oldest] = this.sessions.keys();
      this.sessions.delete(oldest);
      this.#begun.delete(oldest);
      this.#responses.delete(this.#responses.keys().next().value);
    }
    // The INIT's buffer belongs to the caller: keep a copy of the id.
    const peerId = Buffer.from(init.subarray(4, 12));
    const ownId = randomBytes(8);
    this.sessions.set(ownId.toString('hex'), new Session(peerId));
    const parts = [head(RESPONSE, peerId), ownId, this.instanceId, this.epoch, this.parameters];
    let response = Buffer.concat(parts);
    // A RESPONSE is never longer than its INIT (4.3), so ADDRESS_SEEN needs room there.
    const seen = option(ADDRESS_SEEN, address);
    if (response.length + seen.length <= init.length) response = Buffer.concat([response, seen]);
    this.#responses.set(key, response);
    return response;
  }
}

// The side of a connection that sends INIT: one session, once.
export class Initiator extends Side {
  session = null;
  #id = randomBytes(8);

  constructor(intervalUs) {
    super(intervalUs);
    this.intervalUs = intervalUs;
    // The same bytes at each retry. PAD makes room for ADDRESS_SEEN in the RESPONSE.
    this.init = Buffer.concat([
      head(INIT, this.#id),
      this.instanceId,
      this.epoch,
      Buffer.alloc(8),
      this.parameters,
      option(0x00, Buffer.alloc(19)),
    ]);
  }

  accept(kind, frame, address) {
    if (kind !== RESPONSE) return super.accept(kind, frame, address);
    if (this.session || !frame.subarray(4, 12).equals(this.#id)) throw new Refused('not awaited');
    checkParameters(frame.subarray(36, 52));
    parseOptions(frame.subarray(52));
    this.intervalUs = Math.max(this.intervalUs, frame.readUInt32BE(40), 10_000);
    this.session = new Session(Buffer.from(frame.subarray(12, 20)));
    this.sessions.set(this.#id.toString('hex'), this.session);
    return { events: [{ event: 'response' }] };
  }
}
