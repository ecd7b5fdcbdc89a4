"""The options of QUIC, and what they come to. aioquic is imported when QUIC is asked for.

It is the extra `kaudp[quic]`; without it everything else works.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kaudp.cli.arguments import Arguments, Parser, UsageError, one_of
from kaudp.cli.output import Output
from kaudp.events import QUIC_ALPN
from kaudp.io.entrance import quic_module

MODES: Final = ("auto", "datagram", "stream", "ping")
# A server that speaks none of these speaks something that only its owner can name.
OFFERED: Final = (QUIC_ALPN, "h3", "hq-interop", "doq")
_LOGGER: Final = "quic"

# aioquic's types: they stay unnamed here, where aioquic must not be imported.
Configuration = Any
Certificate = Any


def add_client_options(parser: Parser) -> None:
    """Add what a client of QUIC may be told."""
    options = parser.add_argument_group("QUIC", "for quic://HOST:PORT, which takes no key")
    options.add_argument(
        "--mode",
        type=one_of(MODES, "a mode"),
        help="|".join(MODES) + " (default auto: ping, unless the server speaks kaudp)",
    )
    options.add_argument(
        "--alpn",
        metavar="NAME",
        action="append",
        help=f"offer this protocol; may be given again (default {', '.join(OFFERED)})",
    )
    trust = options.add_mutually_exclusive_group()
    trust.add_argument(
        "--ca", metavar="FILE", help="trust these authorities, or this self-signed certificate"
    )
    trust.add_argument(
        "--insecure",
        action="store_true",
        help="accept any certificate: then somebody lives there, whoever it is",
    )


def add_server_options(parser: Parser) -> None:
    """Add what a server of QUIC may be told."""
    options = parser.add_argument_group("QUIC")
    options.add_argument(
        "--quic",
        action="store_true",
        help="accept QUIC; with a key kaudp over UDP too, on the same port",
    )
    options.add_argument("--cert", metavar="FILE", help="the certificate and its chain, in PEM")
    options.add_argument("--cert-key", metavar="FILE", help="the certificate's private key, in PEM")
    options.add_argument(
        "--self-signed",
        action="store_true",
        help="make a certificate of 10 days; it is kept in the files of --cert and --cert-key "
        "where those are given and do not exist",
    )


def refuse_client_options(arguments: Arguments) -> None:
    """Raise `UsageError` where an option is of no use without QUIC."""
    _refuse(arguments, ("mode", "alpn", "ca", "insecure"), "a quic:// target")


def client_settings(arguments: Arguments) -> dict[str, Any]:
    """Give what `kaudp.connect` takes for a quic:// target. Raises `ConfigError`."""
    configuration = _configurations().client_configuration(
        authorities=arguments.ca, verify=not arguments.insecure
    )
    return {
        "quic": configuration,
        "mode": arguments.mode or "auto",
        "alpn": arguments.alpn or OFFERED,
    }


def refuse_server_options(arguments: Arguments) -> None:
    """Raise `UsageError` where an option is of no use without QUIC."""
    _refuse(arguments, ("cert", "cert_key", "self_signed"), "--quic")


def server_certificate(arguments: Arguments) -> Certificate:
    """Read or make the certificate to serve QUIC with. Raises `UsageError` and `ConfigError`."""
    files = (arguments.cert, arguments.cert_key)
    if (files[0] is None) != (files[1] is None):
        raise UsageError("expected --cert FILE and --cert-key FILE together, got one of them")
    if files[0] is None and not arguments.self_signed:
        raise UsageError(
            "expected --cert FILE and --cert-key FILE, or --self-signed, with --quic, got neither"
        )
    # Also tells whether aioquic is there, before a file is written.
    _configurations()
    certificates = quic_module("certificates")
    if not arguments.self_signed or _exist(files):
        return certificates.load(*files)
    certificate = certificates.self_signed()
    if files[0] is not None:
        certificate.save(*files)
    return certificate


def server_configuration(certificate: Certificate) -> Configuration:
    """Give what a server of QUIC is made with."""
    return _configurations().server_configuration(certificate)


def say_certificate(certificate: Certificate, arguments: Arguments, output: Output) -> None:
    """Tell what clients may compare, and what they need in order to trust it."""
    until = certificate.ends
    verb = "valid until" if until > datetime.now(UTC) else "expired on"
    text = f"certificate SHA-256 {certificate.fingerprint}, {verb} {until:%Y-%m-%d %H:%M} UTC"
    if certificate.self_signed:
        trust = "--insecure" if arguments.cert is None else f"--ca {arguments.cert}"
        text += f"; self-signed: clients need {trust}"
    output.say(
        "certificate",
        text,
        sha256=certificate.fingerprint,
        valid_until=until.isoformat(),
        self_signed=certificate.self_signed,
        file=arguments.cert,
    )


def _configurations() -> Any:  # noqa: ANN401
    """Import what needs aioquic, and keep its log off stderr: what matters is told as events."""
    configurations = quic_module("configurations")
    logging.getLogger(_LOGGER).addHandler(logging.NullHandler())
    return configurations


def _exist(files: tuple[str | None, str | None]) -> bool:
    """Tell whether certificate and key are there already. Raises `UsageError` for only one."""
    there = [name for name in files if name is not None and Path(name).exists()]
    if len(there) == 1:
        raise UsageError(f"expected both files of --cert and --cert-key or none, got {there[0]!r}")
    return bool(there)


def _refuse(arguments: Arguments, names: tuple[str, ...], needed: str) -> None:
    for name in names:
        if getattr(arguments, name) not in (None, False):
            option = name.replace("_", "-")
            raise UsageError(f"expected --{option} only with {needed}, got it without")
