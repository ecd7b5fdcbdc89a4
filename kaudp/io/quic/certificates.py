"""Certificates and their keys for QUIC servers: made, read and written. Needs no aioquic."""

import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kaudp.errors import ConfigError

# With P-256 and 14 days at most, browsers accept a certificate by its fingerprint alone.
SELF_SIGNED_DAYS: Final = 10
_CLOCK_SKEW: Final = timedelta(hours=1)
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
# More than any bundle of authorities holds; keeps /dev/zero from filling the memory.
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024

Path = str | os.PathLike[str]


class ServerCertificate(NamedTuple):
    """A certificate, those that lead from it to an authority, and the private key."""

    certificate: x509.Certificate
    chain: list[x509.Certificate]
    key: Any

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, as openssl writes it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def ends(self) -> datetime:
        """When the certificate ceases to be valid."""
        return self.certificate.not_valid_after_utc

    @property
    def self_signed(self) -> bool:
        """Whether no authority vouches for it."""
        return self.certificate.issuer == self.certificate.subject

    def save(self, certificate_file: Path, key_file: Path) -> None:
        """Write two new files, the key for its owner alone. Raises `ConfigError`."""
        secret = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(key_file, secret, 0o600)
        _write_new(certificate_file, _pem([self.certificate, *self.chain]), 0o644)


def self_signed() -> ServerCertificate:
    """Make a certificate for this machine that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kaudp, self-signed")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(_own_names()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # Certificates of several machines have one name: in a bundle their keys tell them apart.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        # Some verifiers refuse a server that shows an authority's certificate as its own.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return ServerCertificate(builder.sign(key, hashes.SHA256()), [], key)


def load(certificate_file: Path, key_file: Path) -> ServerCertificate:
    """Read a certificate, its chain after it, and its key from PEM. Raises `ConfigError`."""
    certificate, *chain = _certificates(certificate_file)
    key = _private_key(key_file)
    if key.public_key() != certificate.public_key():
        raise ConfigError(
            f"expected the private key of {os.fspath(certificate_file)!r}, "
            f"got another in {os.fspath(key_file)!r}"
        )
    return ServerCertificate(certificate, chain, key)


def load_authorities(file: Path) -> bytes:
    """Read the certificates of a PEM file and give them without what else is there.

    Raises `ConfigError`.
    """
    return _pem(_certificates(file))


def _own_names() -> list[x509.GeneralName]:
    names = [*_LOCAL_NAMES, socket.gethostname()]
    return [_general_name(name) for name in dict.fromkeys(names) if name.isascii() and name]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(file))
    except ValueError as error:
        raise ConfigError(
            f"expected PEM certificates, got {os.fspath(file)!r}: {_first_sentence(error)}"
        ) from None


def _private_key(file: Path) -> Any:  # noqa: ANN401
    try:
        return load_pem_private_key(_content(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"expected a private key in PEM without a password, got {os.fspath(file)!r}: "
            f"{_first_sentence(error)}"
        ) from None


def _first_sentence(error: Exception) -> str:
    """Cut what cryptography says to its first sentence: the rest points to its manual."""
    return str(error).splitlines()[0].partition(". ")[0] if str(error) else "unreadable"


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _content(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            return opened.read(_MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"expected a readable file, got {os.fspath(file)!r}: {reason}") from None


def _write_new(file: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"expected a file that can be made, got {os.fspath(file)!r}: {reason}"
        ) from None
