"""io/logs: the logger "kaudp" as a service's owner hears it."""

import base64
import logging
import re
import socket
import subprocess
import sys
from random import Random
from typing import Any

import pytest

import kaudp
from kaudp.core.endpoint import Endpoint
from kaudp.core.paths import Address
from kaudp.io.driver import production_endpoint
from kaudp.io.logs import LEVELS, REFUSALS_SPACING, Refusals, log_event
from kaudp.units import MILLISECOND
from tests.io.quic import pairs
from tests.io.test_udp import KEY, LAN, event_of, linked, run

NEAR, FAR = ("192.0.2.1", 1000), ("192.0.2.2", 2000)
REFUSED = re.compile(r"datagrams refused: (\d+) (\w+)")


class Wire:
    """Two drivers in one process, on one clock; what is on the way is delivered by `deliver`."""

    def __init__(self, *, on_secrets: Any = None) -> None:
        self.now = 0
        self._waiting: list[tuple[bytes, Address, kaudp.Driver]] = []
        self.near = self._driver("near", FAR, accept=False, on_secrets=on_secrets)
        self.far = self._driver("far", NEAR, accept=True, on_secrets=None)

    def _driver(self, name: str, to: Address, **options: Any) -> kaudp.Driver:
        rng = Random(name)
        endpoint = Endpoint(LAN, keys=KEY, rng=rng, entropy=Random(name).randbytes, **options)
        source = NEAR if to == FAR else FAR

        def transmit(data: bytes, _: Address) -> None:
            self._waiting.append((data, source, self.far if to == FAR else self.near))

        return kaudp.Driver(endpoint, transmit, clock=lambda: self.now)

    def deliver(self) -> list[kaudp.Event]:
        while self._waiting:
            data, source, driver = self._waiting.pop(0)
            driver.receive(data, source)
        return [*self.near.events(), *self.far.events()]

    def connect(self) -> kaudp.Session:
        session = self.near.connect(FAR, key_id=KEY.key_id)
        self.deliver()
        assert session.state is kaudp.State.UP
        return session


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kaudp")
    return caplog


def lines(log: pytest.LogCaptureFixture, kind: str) -> list[tuple[int, str]]:
    """Give level and text of what was logged of a kind of event, or of refusals."""
    records = [record for record in log.records if record.name == "kaudp"]
    found = [(record.levelno, record.getMessage()) for record in records]
    return [(level, text) for level, text in found if text.startswith(kind)]


def refused(log: pytest.LogCaptureFixture) -> list[str]:
    return [text for _, text in lines(log, "datagrams refused")]


def test_every_kind_of_event_but_samples_has_a_level() -> None:
    kinds = {kind.__name__ for kind in kaudp.Event.__subclasses__()}
    assert {kind.__name__ for kind in LEVELS} == kinds - {"RoundTrip"}
    warnings = {kind.__name__ for kind, level in LEVELS.items() if level == logging.WARNING}
    assert warnings == {
        *("ConnectFailed", "KeyChangeFailed", "PeerRestarted", "SessionDown", "SessionHalfOpen"),
    }
    assert max(LEVELS.values()) == logging.WARNING


def test_the_life_of_a_session_is_logged_at_its_levels(log: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with linked() as (server, connection):
            own = connection.own_address
            server._release()
            await event_of(connection, kaudp.SessionDown)
        peer = f"peer={connection.address[0]}:{connection.address[1]}"
        key_id = f"key_id={KEY.key_id.hex()}"
        ups = lines(log, "SessionUp")
        assert (logging.INFO, f"SessionUp {peer} {key_id} previous=CONNECTING") in ups
        assert own is not None
        assert any(f"peer={own[0]}:{own[1]} " in text for _, text in ups)
        suspicions = {line for line in lines(log, "SessionSuspect") if peer in line[1]}
        assert suspicions == {(logging.DEBUG, f"SessionSuspect {peer} {key_id} previous=UP")}
        (down,) = lines(log, "SessionDown")
        assert down == (logging.WARNING, f"SessionDown {peer} {key_id} reason=UNREACHABLE_REPORTED")
        (closed,) = [line for line in lines(log, "SessionClosed") if peer in line[1]]
        assert closed[0] == logging.INFO
        assert "reason=NORMAL by_peer=False" in closed[1]

    run(test)


def test_a_failure_to_connect_is_a_warning(log: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            url = f"udp://127.0.0.1:{silent.getsockname()[1]}"
            config = kaudp.Config.wan(connect_timeout_ms=100)
            async with kaudp.connect(url, key=KEY, config=config) as connection:
                await event_of(connection, kaudp.ConnectFailed)
        ((level, text),) = lines(log, "ConnectFailed")
        assert level == logging.WARNING
        assert "unreachable=False" in text

    run(test)


def test_quic_tells_its_mode_too(log: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with pairs.linked():
            pass
        assert {level for level, _ in lines(log, "ModeChosen")} == {logging.DEBUG}
        assert len(lines(log, "ModeChosen")) == 2
        assert len(lines(log, "SessionUp")) >= 2
        assert {level for level, _ in lines(log, "SessionUp")} == {logging.INFO}
        assert all("key_id=none" in text for _, text in lines(log, "SessionUp"))

    run(test)


def test_a_plain_driver_logs_too(log: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    session = wire.connect()
    wire.near.act(lambda now: session.pause(10**9, now))
    wire.deliver()
    assert [level for level, _ in lines(log, "SessionUp")] == [logging.INFO] * 2
    ((level, paused),) = lines(log, "PeerPaused")
    assert level == logging.DEBUG
    assert paused.endswith("duration=1000000000")


def test_a_flood_is_one_line_a_second_and_no_datagram_is_forgotten(
    log: pytest.LogCaptureFixture,
) -> None:
    """10,000 datagrams of two kinds in 3.5 seconds."""
    wire = Wire()
    for number in range(10_000):
        wire.now = number * 350_000
        garbage = b"\x0b\x08\x81\x00" + bytes(60) if number % 2 else b"garbage"
        assert not wire.far.receive(garbage, ("192.0.2.9", 9))
    said = lines(log, "datagrams refused")
    assert len(said) == 2 * 4
    wire.far.close()
    said = lines(log, "datagrams refused")
    assert len(said) == 2 * 5
    assert {level for level, _ in said} == {logging.DEBUG}
    counts = {"not_kaudp": 0, "unknown_session": 0}
    for _, text in said:
        match = REFUSED.match(text)
        assert match is not None
        counts[match[2]] += int(match[1])
    assert counts == {"not_kaudp": 5_000, "unknown_session": 5_000}
    assert said[0][1] == "datagrams refused: 1 not_kaudp, the last from 192.0.2.9:9"


def test_connections_of_a_quic_server_share_the_bound(log: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with pairs.linked() as (server, _):
            url = f"quic://127.0.0.1:{server.address[1]}"
            near = pairs.client_configuration()
            async with kaudp.connect(url, quic=near, config=LAN) as second:
                await event_of(second, kaudp.SessionUp)
                for attachment in server._attachments:
                    attachment._driver.receive(b"garbage", NEAR)
                    attachment._driver.receive(b"garbage", NEAR)
                assert len(server._attachments) == 2
                assert len([text for text in refused(log) if "not_kaudp" in text]) == 1
        # And the rest at the end.
        counts = [int(REFUSED.match(text)[1]) for text in refused(log) if "not_kaudp" in text]
        assert sum(counts) == 4

    run(test)


def test_a_reason_has_its_line_again_after_a_second(log: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    reason = kaudp.DropReason.REPLAY
    for now in (0, REFUSALS_SPACING - 1, REFUSALS_SPACING):
        refusals.note(reason, NEAR, now)
    assert [int(REFUSED.match(text)[1]) for text in refused(log)] == [1, 2]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_refusals_are_silent_above_debug(caplog: pytest.LogCaptureFixture, level: int) -> None:
    caplog.set_level(level, "kaudp")
    wire = Wire()
    wire.connect()
    wire.far.receive(b"garbage", NEAR)
    wire.far.close()
    assert wire.far.endpoint.counters.total() == 1
    assert not lines(caplog, "datagrams refused")


def test_what_is_not_logged_is_not_formatted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "kaudp")
    # No session: to format this would fail.
    log_event(kaudp.SessionUp(None, 0, kaudp.State.CONNECTING))
    caplog.set_level(logging.INFO, "kaudp")
    with pytest.raises(AttributeError):
        log_event(kaudp.SessionUp(None, 0, kaudp.State.CONNECTING))


def test_an_application_that_does_not_ask_hears_nothing() -> None:
    """Without a handler, Python prints warnings to stderr: not ours."""
    code = (
        "import kaudp, logging; from kaudp.io import logs;"
        "logs.LOGGER.warning('kaudp was here'); logging.getLogger('kaudp.io').error('and here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == done.stdout == b""


def forms(secret: bytes) -> list[str]:
    """Give what a secret may look like in a text."""
    plain = base64.b64encode(secret).decode().rstrip("=")
    url = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    return [secret.hex(), secret.hex(" "), repr(secret)[2:-1], plain, url]


def test_no_secret_is_in_a_log_a_repr_or_an_error(log: pytest.LogCaptureFixture) -> None:
    """The same handshake twice, bit by bit: the first tells what must not show in the second."""
    secrets = [KEY.secret]
    Wire(on_secrets=lambda _, secret: secrets.append(secret)).connect()
    assert len(secrets) == 3
    log.clear()

    wire = Wire()
    session = wire.connect()
    wire.near.receive(b"garbage", FAR)
    wire.now += 10**10
    wire.near.wake()
    shown = [record.getMessage() for record in log.records]
    context = session._context
    channel = session._channel
    things: list[Any] = [KEY, session, context, channel, channel._keys, wire.near.endpoint]
    things += [*wire.deliver(), session.stats, wire.near.endpoint.tally(), context.identity]
    shown += [repr(thing) for thing in things]
    for mistake in (
        lambda: wire.near.connect(FAR, key_id=bytes(16)),
        lambda: kaudp.PresharedKey(KEY.secret + b"\0"),
        lambda: kaudp.PresharedKey.from_text(KEY.to_text() + "A"),
        lambda: session.close(wire.now, 99),
    ):
        with pytest.raises(kaudp.KaudpError) as caught:
            mistake()
        shown += [str(caught.value), repr(caught.value)]
    text = "\n".join(shown)
    assert "SessionUp" in text
    for secret in secrets:
        assert not [form for form in forms(secret) if form in text]


def test_the_second_handshake_of_that_test_has_the_secrets_of_the_first() -> None:
    told: list[list[bytes]] = []
    for _ in range(2):
        told.append([])
        Wire(on_secrets=lambda _, secret: told[-1].append(secret)).connect()
    assert told[0] == told[1] != []


def test_refusals_that_nobody_hears_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kaudp")
    driver = kaudp.Driver(production_endpoint(LAN, KEY), lambda data, addr: None)
    assert not driver.receive(b"garbage", NEAR)
    caplog.set_level(logging.DEBUG, "kaudp")
    driver.close()
    assert not refused(caplog)


def test_a_restart_is_a_warning(log: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.connect()
    session = wire.near.endpoint.sessions[0]
    log_event(kaudp.PeerRestarted(session, MILLISECOND))
    ((level, text),) = lines(log, "PeerRestarted")
    assert level == logging.WARNING
    assert text == f"PeerRestarted peer=192.0.2.2:2000 key_id={KEY.key_id.hex()}"
