// A kaudp peer over an unmodified Cloudflare quiche (the binding inside @matrixai/quic), driven
// sans-I/O over node's dgram: datagram mode on a connection of its own.
//
// See ../README.md for the contract that every peer keeps.

import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { native } from '@matrixai/quic';

import { CLOSE, CLOSE_REASON, Initiator, PROBE, Responder, canonical, option } from './frames.mjs';

const { quiche } = native;
const ALPN = 'kaudp/1';
const CONNECT_TIMEOUT_MS = 10_000;
// A peer keeps to the PTO that an endpoint begins with (10.2).
const PTO_MS = 1000;

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

function configure(alpn, { ca, cert, key }) {
  const pem = (path) => path && readFileSync(path);
  const config = quiche.Config.withBoringSslCtx(
    ca !== undefined,
    false,
    pem(ca),
    key && [pem(key)],
    cert && [pem(cert)],
  );
  config.setApplicationProtos([alpn]);
  config.setMaxIdleTimeout(30_000);
  config.setMaxRecvUdpPayloadSize(quiche.MAX_DATAGRAM_SIZE);
  config.enableDgram(true, 16, 1);
  // Room for the control streams of an HTTP/3 client that takes this for a web server.
  config.setInitialMaxData(65_536);
  config.setInitialMaxStreamDataUni(16_384);
  config.setInitialMaxStreamsUni(8);
  return config;
}

// One QUIC connection; `side` takes its datagrams once the ALPN says kaudp.
class Link {
  ended = false;
  #connection;
  #socket;
  #local;
  #side;
  #timer;
  #handedOver;
  #wake = () => {};

  constructor(connection, socket, local, side) {
    this.#connection = connection;
    this.#socket = socket;
    this.#local = local;
    this.#side = side;
  }

  get established() {
    return this.#connection.isEstablished();
  }

  // Where quiche sends to at present.
  get address() {
    const paths = this.#connection.pathStats();
    return canonical((paths.find(({ active }) => active) ?? paths[0]).peerHost);
  }

  receive(packet, from) {
    try {
      this.#connection.recv(packet, { from, to: this.#local });
    } catch {
      // A packet that is not to be had; if it was fatal, quiche has closed the connection.
    }
    this.step();
  }

  send(frame) {
    // Null where the peer takes no DATAGRAM (14.2); a full queue holds a heartbeat already.
    if ((this.#connection.dgramMaxWritableLen() ?? 0) < frame.length) return;
    if (this.#connection.isDgramSendQueueFull()) return;
    this.#connection.dgramSendVec(frame);
    this.#flush();
  }

  async close() {
    this.#connection.close(true, 0, Buffer.alloc(0));
    this.#flush();
    await this.#handedOver;
  }

  step() {
    const alpn = Buffer.from(this.#connection.applicationProto()).toString();
    if (this.established && alpn === ALPN) this.#takeDatagrams();
    this.#flush();
    this.ended = this.#connection.isClosed();
    this.#wake();
  }

  // Waits until the condition holds, the connection ends or the time is over.
  async until(condition, timeoutMs) {
    const end = performance.now() + timeoutMs;
    while (!condition() && !this.ended && performance.now() < end) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, end - performance.now());
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  #takeDatagrams() {
    while (this.#connection.dgramRecvQueueLen() > 0) {
      const frame = Buffer.from(this.#connection.dgramRecvVec());
      const { answer, events = [] } = this.#side.receive(frame, this.address);
      if (answer) this.send(answer);
      events.forEach(say);
    }
  }

  #expire() {
    this.#connection.onTimeout();
    this.step();
  }

  #flush() {
    const packet = Buffer.alloc(quiche.MAX_DATAGRAM_SIZE);
    for (let sent = this.#connection.send(packet); sent; sent = this.#connection.send(packet)) {
      const [length, { to }] = sent;
      // Node sends later: it needs bytes of its own.
      const bytes = Buffer.from(packet.subarray(0, length));
      this.#handedOver = new Promise((resolve) => {
        this.#socket.send(bytes, to.port, to.host, resolve);
      });
    }
    clearTimeout(this.#timer);
    const timeout = this.#connection.timeout();
    if (timeout !== null) this.#timer = setTimeout(() => this.#expire(), timeout);
  }
}

async function bind(port, address) {
  const socket = createSocket('udp4');
  // ICMP errors are hints; QUIC's own timers judge.
  socket.on('error', () => {});
  socket.bind(port, address);
  await once(socket, 'listening');
  return { socket, local: { host: address, port: socket.address().port } };
}

async function serve({ port, cert, key, alpn }) {
  process.on('SIGTERM', () => process.exit(0));
  const config = configure(alpn, { cert, key });
  const { socket, local } = await bind(Number(port), '127.0.0.1');
  const links = new Map();

  function accept(header, from) {
    if (header.ty !== quiche.Type.Initial) return undefined;
    if (!quiche.versionIsSupported(header.version)) {
      const packet = Buffer.alloc(quiche.MAX_DATAGRAM_SIZE);
      const length = quiche.negotiateVersion(header.scid, header.dcid, packet);
      socket.send(packet.subarray(0, length), from.port, from.host);
      return undefined;
    }
    const id = randomBytes(quiche.MAX_CONN_ID_LEN);
    const connection = quiche.Connection.accept(id, null, local, from, config);
    const link = new Link(connection, socket, local, new Responder());
    // The client's first packets go to an id of its own choice.
    for (const name of [id.toString('hex'), Buffer.from(header.dcid).toString('hex')]) {
      links.set(name, link);
    }
    return link;
  }

  socket.on('message', (packet, { address: host, port: fromPort }) => {
    let header;
    try {
      header = quiche.Header.fromSlice(packet, quiche.MAX_CONN_ID_LEN);
    } catch {
      return;
    }
    const from = { host, port: fromPort };
    const link = links.get(Buffer.from(header.dcid).toString('hex')) ?? accept(header, from);
    link?.receive(packet, from);
    for (const [name, { ended }] of links) if (ended) links.delete(name);
  });
  say({ event: 'ready', port: local.port });
}

async function heartbeat(link, side, count) {
  const deadline = performance.now() + CONNECT_TIMEOUT_MS;
  for (let retry = 500; !side.session && !link.ended && performance.now() < deadline; retry *= 2) {
    link.send(side.init);
    await link.until(() => side.session, retry);
  }
  const { session } = side;
  let probes = 0;
  if (session) {
    const over = () => session.over;
    let planned = performance.now();
    while (probes < count && !link.ended && !over()) {
      link.send(session.build(PROBE, link.address));
      probes += 1;
      planned += side.intervalUs / 1000;
      await link.until(over, planned - performance.now());
    }
    await link.until(() => over() || session.confirmed === session.sent, PTO_MS);
    // Where the peer closed the session, it closes the connection too, once it has the answer.
    if (over()) await link.until(() => false, PTO_MS);
    for (let sent = 0; sent < 3 && !link.ended && !over(); sent += 1) {
      link.send(session.build(CLOSE, link.address, option(CLOSE_REASON, Buffer.alloc(2))));
      await link.until(over, PTO_MS);
    }
  }
  say({ event: 'done', probes, replies: session?.replies ?? 0 });
  return session?.replies ? 0 : 1;
}

async function connect({ host, port, ca, alpn, count, 'interval-ms': intervalMs }) {
  const { address } = await lookup(host, { family: 4 });
  const remote = { host: address, port: Number(port) };
  const { socket, local } = await bind(0, '0.0.0.0');
  const id = randomBytes(quiche.MAX_CONN_ID_LEN);
  const config = configure(alpn, { ca });
  // TLS names no addresses (RFC 6066, section 3): this one goes by its certificate's name.
  const name = host === '127.0.0.1' ? 'localhost' : host;
  const connection = quiche.Connection.connect(name, id, local, remote, config);
  const side = new Initiator(Number(intervalMs) * 1000);
  const link = new Link(connection, socket, local, side);
  socket.on('message', (packet, { address: from, port: fromPort }) => {
    link.receive(packet, { host: from, port: fromPort });
  });
  link.step();
  await link.until(() => link.established, CONNECT_TIMEOUT_MS);
  if (!link.established) {
    process.stderr.write('peer: no connection\n');
    return 1;
  }
  let status = 0;
  if (alpn === ALPN) {
    status = await heartbeat(link, side, Number(count));
  } else {
    say({ event: 'connected' });
    await link.until(() => false, Number(count) * Number(intervalMs));
    say({ event: 'done' });
  }
  await link.close();
  return status;
}

const COMMANDS = {
  serve: { run: serve, needs: ['port', 'cert', 'key'] },
  connect: { run: connect, needs: ['host', 'port', 'ca', 'count', 'interval-ms'] },
};

function fail(status, text) {
  process.stderr.write(`peer: ${text}\n`);
  process.exit(status);
}

async function main([name, ...rest]) {
  if (name === undefined) fail(2, 'usage: serve | connect');
  if (!Object.hasOwn(COMMANDS, name)) fail(127, `no command ${name}`);
  const { run, needs } = COMMANDS[name];
  const options = { alpn: { type: 'string', default: ALPN } };
  options.mode = { type: 'string', default: 'datagram' };
  for (const need of needs) options[need] = { type: 'string' };
  let values;
  try {
    ({ values } = parseArgs({ args: rest, options }));
  } catch (error) {
    fail(2, error.message);
  }
  const lacking = needs.filter((need) => values[need] === undefined);
  if (lacking.length > 0) fail(2, `--${lacking[0]} is missing`);
  if (values.mode !== 'datagram') fail(127, `no mode ${values.mode}`);
  const status = await run(values);
  // A server runs on; a client is done, whatever its timers and socket say.
  if (status !== undefined) process.exit(status);
}

await main(process.argv.slice(2));
