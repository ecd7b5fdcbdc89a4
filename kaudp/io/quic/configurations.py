"""aioquic's configuration for connections of kaudp's own, as the command line asks for it."""

import ssl

from aioquic.quic.configuration import QuicConfiguration

from kaudp.io.quic.certificates import Path, ServerCertificate, load_authorities


def client_configuration(
    *, authorities: Path | None = None, verify: bool = True
) -> QuicConfiguration:
    """Say whose certificates to trust: the public authorities', those of a file, or anybody's.

    Raises `ConfigError`.
    """
    configuration = QuicConfiguration(is_client=True)
    if not verify:
        configuration.verify_mode = ssl.CERT_NONE
    elif authorities is not None:
        configuration.load_verify_locations(cadata=load_authorities(authorities))
    return configuration


def server_configuration(own: ServerCertificate) -> QuicConfiguration:
    """Say who the server is."""
    return QuicConfiguration(
        is_client=False,
        certificate=own.certificate,
        certificate_chain=own.chain,
        private_key=own.key,
    )
