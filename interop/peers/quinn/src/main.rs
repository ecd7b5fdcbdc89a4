//! A kaudp peer over an unmodified quinn: datagram mode on a connection of its own.
//!
//! See ../README.md for the contract that every peer keeps.

mod frames;

use std::collections::HashMap;
use std::error::Error;
use std::io::BufReader;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::exit;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use rustls::{Certificate, PrivateKey, RootCertStore};
use tokio::signal::unix::{signal, SignalKind};
use tokio::time::{timeout, timeout_at, Instant};

use frames::{canonical, Initiator, Responder, Session};

type Fallible<T> = Result<T, Box<dyn Error>>;

const ALPN: &str = "kaudp/1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer keeps to the PTO that an endpoint begins with (10.2).
const PTO: Duration = Duration::from_secs(1);

/// The flags of a command, each with its value.
struct Flags(HashMap<String, String>);

impl Flags {
    fn parse(arguments: &[String], names: &[&str]) -> Self {
        let mut flags = HashMap::new();
        for pair in arguments.chunks(2) {
            let name = pair[0]
                .strip_prefix("--")
                .filter(|name| names.contains(name));
            match (name, pair.get(1)) {
                (Some(name), Some(value)) => {
                    flags.insert(name.to_string(), value.clone());
                }
                _ => fail(2, &format!("usage: flags are {names:?}, each with a value")),
            }
        }
        Flags(flags)
    }

    fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(value) => value,
            None => fail(2, &format!("--{name} is missing")),
        }
    }

    fn number<T: FromStr>(&self, name: &str) -> T {
        match self.text(name).parse() {
            Ok(value) => value,
            Err(_) => fail(2, &format!("--{name} is not a number")),
        }
    }

    fn alpn(&self) -> &str {
        self.0.get("alpn").map_or(ALPN, String::as_str)
    }
}

fn fail(status: i32, text: &str) -> ! {
    eprintln!("quinn_peer: {text}");
    exit(status)
}

fn certificates(path: &str) -> Fallible<Vec<Certificate>> {
    let chain = rustls_pemfile::certs(&mut BufReader::new(fs::File::open(path)?))?;
    Ok(chain.into_iter().map(Certificate).collect())
}

fn private_key(path: &str) -> Fallible<PrivateKey> {
    let keys = rustls_pemfile::pkcs8_private_keys(&mut BufReader::new(fs::File::open(path)?))?;
    Ok(PrivateKey(keys.into_iter().next().ok_or("no PKCS #8 key")?))
}

fn transport() -> Fallible<Arc<TransportConfig>> {
    let mut config = TransportConfig::default();
    config.max_idle_timeout(Some(Duration::from_secs(30).try_into()?));
    Ok(Arc::new(config))
}

/// Hands a frame to quinn. What the peer does not allow is as good as lost.
fn send(connection: &Connection, frame: Vec<u8>) {
    let _ = connection.send_datagram(frame.into());
}

async fn talk(connection: Connection) {
    let mut side = Responder::new();
    while let Ok(frame) = connection.read_datagram().await {
        let (answer, lines) = side.receive(&frame, &canonical(connection.remote_address()));
        if let Some(answer) = answer {
            send(&connection, answer);
        }
        lines.iter().for_each(|line| println!("{line}"));
    }
}

async fn serve(flags: Flags) -> Fallible<i32> {
    let port: u16 = flags.number("port");
    let speaks_kaudp = flags.alpn() == ALPN;
    let mut tls = rustls::ServerConfig::builder()
        .with_safe_defaults()
        .with_no_client_auth()
        .with_single_cert(
            certificates(flags.text("cert"))?,
            private_key(flags.text("key"))?,
        )?;
    tls.alpn_protocols = vec![flags.alpn().into()];
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport = transport()?;
    let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], port)))?;
    let mut terminated = signal(SignalKind::terminate())?;
    println!(r#"{{"event":"ready","port":{port}}}"#);
    loop {
        tokio::select! {
            // The process ends without a word, as a crashed one would.
            _ = terminated.recv() => exit(0),
            Some(connecting) = endpoint.accept() => {
                tokio::spawn(async move {
                    if let Ok(connection) = connecting.await {
                        if speaks_kaudp {
                            talk(connection).await;
                        } else {
                            // Dropping the connection would close it.
                            connection.closed().await;
                        }
                    }
                });
            }
        }
    }
}

/// Takes datagrams until the condition holds, the connection ends or the time is over.
async fn until(
    connection: &Connection,
    side: &mut Initiator,
    deadline: Instant,
    condition: impl Fn(Option<&Session>) -> bool,
) {
    while !condition(side.session.as_ref()) {
        let frame = match timeout_at(deadline, connection.read_datagram()).await {
            Ok(Ok(frame)) => frame,
            _ => return,
        };
        let (answer, lines) = side.receive(&frame, &canonical(connection.remote_address()));
        if let Some(answer) = answer {
            send(connection, answer);
        }
        lines.iter().for_each(|line| println!("{line}"));
    }
}

fn over(session: Option<&Session>) -> bool {
    session.map_or(false, |session| session.over)
}

async fn heartbeat(connection: &Connection, side: &mut Initiator, count: u64) -> i32 {
    let address = canonical(connection.remote_address());
    let ended = || connection.close_reason().is_some();
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut retry = Duration::from_millis(500);
    while side.session.is_none() && !ended() && Instant::now() < deadline {
        send(connection, side.init.clone());
        until(connection, side, Instant::now() + retry, |session| {
            session.is_some()
        })
        .await;
        retry *= 2;
    }
    let mut probes = 0;
    let mut planned = Instant::now();
    while let Some(session) = side.session.as_mut() {
        if probes == count || ended() || session.over {
            break;
        }
        send(connection, session.probe(&address));
        probes += 1;
        planned += Duration::from_micros(side.interval_us.into());
        until(connection, side, planned, over).await;
    }
    let answered = |session: Option<&Session>| {
        session.map_or(true, |session| {
            session.over || session.confirmed == session.sent
        })
    };
    until(connection, side, Instant::now() + PTO, answered).await;
    if over(side.session.as_ref()) {
        // The peer closed the session. It closes the connection too, once it has the answer.
        until(connection, side, Instant::now() + PTO, |_| false).await;
    }
    for _ in 0..3 {
        match side.session.as_mut() {
            Some(session) if !session.over && !ended() => {
                send(connection, session.close(&address));
                until(connection, side, Instant::now() + PTO, over).await;
            }
            _ => break,
        }
    }
    let replies = side.session.as_ref().map_or(0, |session| session.replies);
    println!(r#"{{"event":"done","probes":{probes},"replies":{replies}}}"#);
    i32::from(replies == 0)
}

async fn connect(flags: Flags) -> Fallible<i32> {
    let (host, port): (&str, u16) = (flags.text("host"), flags.number("port"));
    let (count, interval_ms): (u64, u32) = (flags.number("count"), flags.number("interval-ms"));
    // TLS names no addresses (RFC 6066, section 3): this one goes by its certificate's name.
    let name = if host == "127.0.0.1" {
        "localhost"
    } else {
        host
    };
    let remote = (host, port)
        .to_socket_addrs()?
        .find(SocketAddr::is_ipv4)
        .ok_or("no address")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(flags.text("ca"))? {
        roots.add(&certificate)?;
    }
    let mut tls = rustls::ClientConfig::builder()
        .with_safe_defaults()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![flags.alpn().into()];
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport()?);
    let endpoint = Endpoint::client(SocketAddr::from(([0, 0, 0, 0], 0)))?;
    let connecting = endpoint.connect_with(config, remote, name)?;
    let connection = timeout(CONNECT_TIMEOUT, connecting).await??;
    let status = if flags.alpn() == ALPN {
        let mut side = Initiator::new(interval_ms * 1000);
        heartbeat(&connection, &mut side, count).await
    } else {
        println!(r#"{{"event":"connected"}}"#);
        let stay = Duration::from_millis(count * u64::from(interval_ms));
        let _ = timeout(stay, connection.closed()).await;
        println!(r#"{{"event":"done"}}"#);
        0
    };
    connection.close(0u8.into(), b"");
    endpoint.wait_idle().await;
    Ok(status)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let names: &[&str] = match arguments.first().map(String::as_str) {
        None => fail(2, "usage: quinn_peer serve | connect"),
        Some("serve") => &["port", "cert", "key", "alpn", "mode"],
        Some("connect") => &["host", "port", "ca", "alpn", "mode", "count", "interval-ms"],
        Some(other) => fail(127, &format!("no command {other}")),
    };
    let flags = Flags::parse(&arguments[1..], names);
    if let Some(mode) = flags.0.get("mode").filter(|mode| *mode != "datagram") {
        fail(127, &format!("no mode {mode}"));
    }
    let outcome = if arguments[0] == "serve" {
        serve(flags).await
    } else {
        connect(flags).await
    };
    match outcome {
        Ok(status) => exit(status),
        Err(error) => fail(1, &error.to_string()),
    }
}
