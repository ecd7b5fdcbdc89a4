"""The QUIC stacks of the interop matrix: what each can do, and how to find, build and start it.

Run as a program it shows what is here and what is missing; with --build it builds what needs it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Role = Literal["server", "client"]
Mode = Literal["datagram", "ping"]

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "kaudp-interop"
GOPATH = Path("/usr/share/gocode")
CRATES = Path("/usr/share/cargo/registry")


def _output(*argv: str) -> str:
    """What a command prints, or nothing when it fails or is not there."""
    if not shutil.which(argv[0]):
        return ""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _debian_version(package: str) -> str:
    return _output("dpkg-query", "-W", "-f", "${Version}", package)


def _run(argv: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a build; its output goes to stderr, so that stdout stays the caller's."""
    subprocess.run(argv, cwd=cwd, env={**os.environ, **(env or {})}, check=True, stdout=2)


class Peer:
    """One stack. This class starts programs that keep the contract of README.md."""

    name: str
    roles: frozenset[Role] = frozenset(("server", "client"))
    modes: frozenset[Mode] = frozenset(("datagram", "ping"))
    # The ALPN that its server insists on; None: it takes what it is told.
    alpn: str | None = None
    # Whether the server prints {"event":"ready"}.
    announces: bool = True

    def __init__(self, cache: Path = CACHE) -> None:
        self.cache = cache

    def version(self) -> str:
        """The version of the installed stack, asked from the tool or its package."""
        raise NotImplementedError

    def missing(self) -> str | None:
        """What is not installed, or None."""
        raise NotImplementedError

    def build(self) -> None:
        """Build what this peer needs, into the cache folder; does little when it is fresh."""

    def program(self) -> list[str]:
        """Return the argv that the commands of the contract are appended to."""
        raise NotImplementedError

    def server(self, port: int, cert: Path, key: Path, alpn: str) -> list[str]:
        """Argv of a server on 127.0.0.1."""
        paths = ["--cert", str(cert), "--key", str(key)]
        return [*self.program(), "serve", "--port", str(port), *paths, "--alpn", alpn]

    def client(
        self, host: str, port: int, ca: Path, alpn: str, count: int, interval_ms: int
    ) -> list[str]:
        """Argv of a client that sends `count` probes, or stays as long with another ALPN."""
        target = ["--host", host, "--port", str(port), "--ca", str(ca), "--alpn", alpn]
        work = ["--count", str(count), "--interval-ms", str(interval_ms)]
        return [*self.program(), "connect", *target, *work]


class Qh3(Peer):
    name = "qh3"

    def version(self) -> str:
        return importlib.metadata.version("qh3")

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("qh3") else "no qh3 in this Python: pip install qh3"

    def program(self) -> list[str]:
        return [sys.executable, str(HERE / "qh3_peer.py")]


class Quiche(Peer):
    name = "quiche"
    _folder = HERE / "quiche"
    _package = _folder / "node_modules" / "@matrixai" / "quic" / "package.json"

    def version(self) -> str:
        return f"@matrixai/quic {json.loads(self._package.read_text())['version']}"

    def missing(self) -> str | None:
        if not shutil.which("node"):
            return "no node"
        if self._package.exists():
            return None
        return f"no @matrixai/quic: npm install in {self._folder}"

    def program(self) -> list[str]:
        return ["node", str(self._folder / "peer.mjs")]


class QuicGo(Peer):
    name = "quic-go"
    roles = frozenset(("server",))

    def version(self) -> str:
        return _debian_version("golang-github-lucas-clemente-quic-go-dev")

    def missing(self) -> str | None:
        if not shutil.which("go"):
            return "no go"
        source = GOPATH / "src" / "github.com" / "lucas-clemente" / "quic-go"
        return None if source.is_dir() else f"no quic-go in {GOPATH}"

    def build(self) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        argv = ["go", "build", "-o", self.program()[0], "./quic_go"]
        _run(argv, HERE, {"GOPATH": str(GOPATH), "GO111MODULE": "off"})

    def program(self) -> list[str]:
        return [str(self.cache / "quic_go")]


class Quinn(Peer):
    name = "quinn"

    def version(self) -> str:
        return _debian_version("librust-quinn-dev")

    def missing(self) -> str | None:
        if not shutil.which("cargo"):
            return "no cargo"
        return None if any(CRATES.glob("quinn-[0-9]*")) else f"no quinn in {CRATES}"

    def build(self) -> None:
        # Built from a copy: cargo writes Cargo.lock, which depends on Debian's release.
        copy = self.cache / "quinn"
        shutil.copytree(HERE / "quinn", copy, dirs_exist_ok=True)
        _run(["nice", "cargo", "build", "--release", "--offline", "--quiet"], copy)

    def program(self) -> list[str]:
        return [str(self.cache / "quinn" / "target" / "release" / "quinn_peer")]


class WebServer(Peer):
    """An unmodified HTTP/3 server: it can only be pinged."""

    roles = frozenset(("server",))
    modes = frozenset(("ping",))
    alpn = "h3"
    announces = False

    def server(self, port: int, cert: Path, key: Path, alpn: str) -> list[str]:
        if alpn != self.alpn:
            raise ValueError(f"{self.name} speaks {self.alpn} only")
        return self.command(port, cert, key)

    def command(self, port: int, cert: Path, key: Path) -> list[str]:
        """Argv of the server."""
        raise NotImplementedError

    def client(
        self, host: str, port: int, ca: Path, alpn: str, count: int, interval_ms: int
    ) -> list[str]:
        raise ValueError(f"{self.name} has no client")


class Ngtcp2(WebServer):
    name = "ngtcp2"
    # Debian's ngtcp2-server is the GnuTLS one, in a folder that is not in every user's PATH.
    _binary = Path("/usr/sbin/gtlsserver")

    def version(self) -> str:
        return _debian_version("ngtcp2-server")

    def missing(self) -> str | None:
        return None if self._binary.exists() else f"no {self._binary}: apt ngtcp2-server"

    def command(self, port: int, cert: Path, key: Path) -> list[str]:
        serves = f"--htdocs={cert.parent}"
        options = ["--quiet", "--timeout=30s", serves]
        return [str(self._binary), *options, "127.0.0.1", str(port), str(key), str(cert)]


class Caddy(WebServer):
    name = "caddy"

    def version(self) -> str:
        return _output("caddy", "version")

    def missing(self) -> str | None:
        return None if shutil.which("caddy") else "no caddy"

    def command(self, port: int, cert: Path, key: Path) -> list[str]:
        variables = {
            "KAUDP_PORT": port,
            "KAUDP_CERT": cert.resolve(),
            "KAUDP_KEY": key.resolve(),
            # Caddy saves its configuration and a certificate authority there.
            "XDG_CONFIG_HOME": self.cache / "caddy",
            "XDG_DATA_HOME": self.cache / "caddy",
        }
        config = ["--config", str(HERE / "caddy" / "Caddyfile"), "--adapter", "caddyfile"]
        return ["env", *(f"{k}={v}" for k, v in variables.items()), "caddy", "run", *config]


STACKS: tuple[type[Peer], ...] = (Qh3, Quiche, QuicGo, Quinn, Ngtcp2, Caddy)


def peers(cache: Path = CACHE) -> dict[str, Peer]:
    """All peers by name, with what they build in `cache`."""
    return {stack.name: stack(cache) for stack in STACKS}


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that all stacks take, and its key, as PEM files in `folder`.

    ECDSA P-256 and no more than 10 days, which is what browsers accept by hash, too.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    ]
    # An hour of the past allows for clocks that differ, and is part of the ten days.
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


def main() -> None:
    parser = argparse.ArgumentParser(description="Show the peers that are installed.")
    parser.add_argument("--build", action="store_true", help="build those that need it")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder to build in")
    arguments = parser.parse_args()
    for peer in peers(arguments.cache).values():
        lack = peer.missing()
        if lack is None and arguments.build:
            peer.build()
        roles, modes = ",".join(sorted(peer.roles)), ",".join(sorted(peer.modes))
        found = peer.version() if lack is None else f"missing: {lack}"
        print(f"{peer.name:8} {roles:14} {modes:14} {found}")


if __name__ == "__main__":
    main()
