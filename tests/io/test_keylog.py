"""io/keylog: written when asked for, readable by its owner alone, and it opens real frames."""

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import kaudp
from kaudp.io import sockets
from kaudp.io.keylog import LABEL, KeylogFile, parse_line
from kaudp.wire import codec
from kaudp.wire.seal import traffic_key, unseal
from tests.io.quic.pairs import client_configuration, server_configuration
from tests.io.test_udp import KEY, LAN, event_of, games, run


def logged(path: Path) -> dict[bytes, bytes]:
    parsed = [parse_line(line) for line in path.read_text().splitlines()]
    assert None not in parsed
    assert len(dict(parsed)) == len(parsed)
    return dict(parsed)


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Record what goes through real sockets of kaudp."""
    recorded: list[bytes] = []
    transmit = sockets.transmit

    def noted(sock, data: bytes, address) -> None:
        recorded.append(data)
        transmit(sock, data, address)

    monkeypatch.setattr(sockets, "transmit", noted)
    return recorded


def opened(frames: list[bytes], secrets: dict[bytes, bytes]) -> int:
    """Open all transport frames with a key log; give their number."""
    sealed = [frame for frame in frames if frame[1] in codec.TRANSPORT_TYPES]
    for frame in sealed:
        header = codec.parse_transport_header(frame)
        key = AESGCM(traffic_key(secrets[header.receiver_session_id]))
        assert unseal(key, header.packet_number, frame)
    return len(sealed)


def test_both_ends_write_what_opens_every_frame(tmp_path: Path, frames: list[bytes]) -> None:
    near, far = tmp_path / "near", tmp_path / "far"

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=LAN, keylog=far) as server:
            url = f"udp://127.0.0.1:{server.address[1]}"
            async with kaudp.connect(url, key=KEY, config=LAN, keylog=near) as connection:
                while connection.stats.round_trips < 3:
                    await asyncio.sleep(0.01)

    run(test)
    assert logged(near) == logged(far)
    assert len(logged(near)) == 2
    assert opened(frames, logged(near)) >= 8
    for path in (near, far):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_attachment_takes_the_object(tmp_path: Path, frames: list[bytes]) -> None:
    path = tmp_path / "keylog"

    async def test() -> None:
        async with games() as (server, client):
            await client.heart.close()
            with kaudp.KeylogFile(path) as keylog:
                heart = kaudp.attach(client.transport, keys=KEY, config=LAN, keylog=keylog)
                client.heart = heart
                heart.connect(server.transport.get_extra_info("sockname"), KEY)
                await event_of(heart, kaudp.SessionUp)
                await heart.close()

    run(test)
    assert opened(frames, logged(path)) >= 2


def test_lines_are_appended_and_each_handshake_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "keylog"

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=LAN, keylog=path) as server:
            url = f"udp://127.0.0.1:{server.address[1]}"
            for _ in range(2):
                async with kaudp.connect(url, key=KEY, config=LAN) as connection:
                    await event_of(connection, kaudp.SessionUp)

    run(test)
    assert len(logged(path)) == 4
    run(test)
    assert len(logged(path)) == 8


def test_a_response_seen_again_is_not_logged_again() -> None:
    told: list[bytes] = []
    sent: list[bytes] = []
    driver = kaudp.Driver(
        kaudp.io.driver.production_endpoint(LAN, KEY, on_secrets=lambda i, _: told.append(i)),
        lambda data, _: sent.append(data),
    )
    far = kaudp.io.driver.production_endpoint(LAN, KEY, True)
    session = driver.connect(("192.0.2.1", 1), key_id=KEY.key_id)
    assert far.receive_datagram(sent[0], ("192.0.2.2", 2), driver.now)
    ((response, _),) = far.datagrams_to_send()
    for _ in range(3):
        assert driver.receive(response, ("192.0.2.1", 1))
    assert session.state is kaudp.State.UP
    assert len(told) == 2


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        KeylogFile(tmp_path / "keylog").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keylog").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keylog"
    path.touch()
    path.chmod(mode)
    with pytest.raises(kaudp.ConfigError, match=rf"expected a key log .* of mode {mode:04o}"):
        KeylogFile(path)
    assert path.read_bytes() == b""


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(kaudp.ConfigError, match="expected a key log file that can be written"):
        KeylogFile(tmp_path / "nowhere" / "keylog")


def test_it_is_warned_once_that_secrets_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = bytes(range(100, 132))
    with KeylogFile(tmp_path / "keylog") as keylog:
        keylog(bytes(8), secret)
        keylog(bytes(8), secret)
    ((name, level, text),) = caplog.record_tuples
    assert (name, level) == ("kaudp", logging.WARNING)
    assert "secrets of sessions are written" in text
    assert secret.hex() not in text
    assert (tmp_path / "keylog").read_text() == 2 * f"{LABEL} {'00' * 8} {secret.hex()}\n"


def test_a_full_disk_is_counted_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with KeylogFile("/dev/full") as keylog:
        for _ in range(3):
            keylog(bytes(8), bytes(32))
        assert keylog.lost == 3
    assert [text for *_, text in caplog.record_tuples if "could not be written" in text] == [
        "a line of the key log could not be written; more may be lost"
    ]
    keylog(bytes(8), bytes(32))
    assert keylog.lost == 3


def test_quic_alone_has_no_key_log(tmp_path: Path) -> None:
    path = tmp_path / "keylog"
    with pytest.raises(kaudp.ConfigError, match="secrets_log_file"):
        kaudp.connect("quic://127.0.0.1:9", quic=client_configuration(), keylog=path)
    with pytest.raises(kaudp.ConfigError, match="secrets_log_file"):
        kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), keylog=path)
    assert not path.exists()


def test_udp_beside_quic_has_one(tmp_path: Path) -> None:
    path = tmp_path / "keylog"

    async def test() -> None:
        async with (
            kaudp.serve(
                "udp://127.0.0.1:0", keys=KEY, quic=server_configuration(), keylog=path
            ) as server,
            kaudp.connect(f"udp://127.0.0.1:{server.address[1]}", key=KEY) as connection,
        ):
            await event_of(connection, kaudp.SessionUp)

    run(test)
    assert len(logged(path)) == 2


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"{LABEL} {'00' * 8}",
        f"{LABEL} {'00' * 8} {'00' * 31}",
        f"{LABEL} {'00' * 8} {'0G' * 32}",
        f"CLIENT_RANDOM {'00' * 8} {'00' * 32}",
        f"{LABEL} {'00' * 8} {'00' * 32} more",
    ],
)
def test_another_line_is_none(line: str) -> None:
    assert parse_line(line) is None
