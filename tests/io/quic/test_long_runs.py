"""What shows only under load, in pauses, over long outages, and at the hundredth time."""

import asyncio
import contextlib
import random
from typing import Any

import pytest

import kaudp
from kaudp.io import sockets
from kaudp.io.quic import server as server_module
from tests.io.quic.pairs import (
    CONTEXT,
    HEARTS,
    Application,
    Pair,
    client_configuration,
    event_of,
    linked,
    paired,
    server_configuration,
    until,
    virtually,
)

LAN = kaudp.Config.lan()
PATIENT = {"client": {"idle_timeout": 3600.0}, "server": {"idle_timeout": 3600.0}}


async def upload(side: Application) -> None:
    """Keep the congestion window full."""
    stream = side.quic.get_next_available_stream_id(is_unidirectional=True)
    while True:
        known = side.quic._streams.get(stream)
        if known is None or len(known.sender._buffer) < 300_000:
            side.quic.send_stream_data(stream, bytes(50_000))
            side.transmit()
        await asyncio.sleep(0.005)


def lose(pair: Pair, part: float, seed: int = 1) -> None:
    rng = random.Random(seed)
    pair.network.lose = lambda data, source, target: rng.random() < part


@pytest.mark.parametrize("mode", ["datagram", "stream"])
@virtually
async def test_an_upload_convicts_nobody(mode: str) -> None:
    """KA-14.6-3: what the application has in flight keeps no heartbeat back. 3 % are lost."""
    async with paired(near={**HEARTS, "mode": mode}, delay=0.02) as pair:
        await pair.up()
        uploading = asyncio.ensure_future(upload(pair.client))
        lose(pair, 0.03)
        await asyncio.sleep(60)
        uploading.cancel()
        for side in pair:
            assert side.heard_of(kaudp.SessionSuspect) or side is pair.server
            assert not side.heard_of(kaudp.SessionDown)
            assert not side.attached.unsent["crowded"]


@pytest.mark.parametrize("outage", [60, 300])
@virtually
async def test_after_a_long_outage_there_is_room_for_a_heartbeat(outage: float) -> None:
    """KA-14.6-3: both ends try again within an eighth of the outage each."""
    async with paired(delay=0.01, **PATIENT) as pair:
        await pair.up()
        lose(pair, 1.0)
        await asyncio.sleep(outage)
        assert pair.client.attached.state is kaudp.State.DOWN
        assert pair.client.attached.unsent["crowded"] > 0
        lose(pair, 0.0)
        before = len(pair.client.heard_of(kaudp.SessionUp))
        loop = asyncio.get_running_loop()
        mended = loop.time()
        await until(lambda: len(pair.client.heard_of(kaudp.SessionUp)) > before, 600)
        assert loop.time() - mended < outage / 4 + 5


@pytest.mark.parametrize("mode", ["datagram", "ping"])
@pytest.mark.parametrize("config", [kaudp.Config.lan(), kaudp.Config.wan()])
@virtually
async def test_a_pause_keeps_the_connection(mode: str, config: kaudp.Config) -> None:
    """KA-14.6-4: NAT keep-alive goes on, as often as QUIC's idle timeout needs it."""
    near = {"peer_speaks_kaudp": True, "config": config, "mode": mode}
    far = None if mode == "ping" else {**near, "mode": "auto"}
    brief = {"idle_timeout": 20.0}
    async with paired(brief, dict(brief), near=near, far=far) as pair:
        await until(lambda: pair.client.heard_of(kaudp.SessionUp))
        await asyncio.sleep(1)
        pair.client.attached.pause(50.0)
        await asyncio.sleep(60)
        assert pair.client.attached.state is kaudp.State.UP
        assert not pair.client.terminated


@virtually
async def test_a_stream_that_is_open_already_is_the_applications() -> None:
    """KA-14.3-2: attached in the middle, kaudp cannot know how a stream began."""
    async with paired(near=None, far=None) as pair:
        stream = pair.client.send_stream(b"hello ")
        await until(lambda: pair.server.streams)
        pair.server.attach(**HEARTS)
        for piece in (CONTEXT[:1], CONTEXT[1:], b" is the topic"):
            pair.client.send_stream(piece, stream_id=stream)
            await asyncio.sleep(0.1)
        assert bytes(pair.server.streams[stream]) == b"hello " + CONTEXT + b" is the topic"


@virtually
async def test_frames_of_a_session_long_gone_stay_out_of_the_application() -> None:
    """KA-5.3-1: inside QUIC its id is known to the end of the connection."""
    far = {"peer_speaks_kaudp": True, "config": kaudp.Config.lan(down_retention_ms=1_000)}
    async with paired(far=far, **PATIENT) as pair:
        await pair.up()
        lose(pair, 1.0)
        await asyncio.sleep(45)
        assert pair.server.heard_of(kaudp.SessionClosed)
        lose(pair, 0.0)
        await asyncio.sleep(30)
        assert pair.server.datagrams == []
        assert pair.server.attached.counters[kaudp.DropReason.LINGERING] > 0


@virtually
async def test_a_peer_may_begin_again_and_is_heard() -> None:
    """The responder's `events()` do not end with the first session."""
    kinds: list[str] = []

    async def listen(heart: Any) -> None:
        async for event in heart.events():
            kinds.append(type(event).__name__)

    async with paired(near=None, far=None) as pair:
        listening = kaudp.attach_quic(pair.server, peer_speaks_kaudp=True, config=LAN)
        task = asyncio.ensure_future(listen(listening))
        for _ in range(2):
            pair.client.attach(**HEARTS)
            await until(lambda: pair.client.attached.stats.round_trips > 1, 5)
            await pair.client.attached.close()
            await asyncio.sleep(0.1)
        task.cancel()
        assert kinds == ["ModeChosen", "SessionUp", "SessionClosed"] * 2


@virtually
async def test_attaching_a_thousand_times_leaves_nothing_behind() -> None:
    async with paired(near=None, far=None) as pair:
        for _ in range(1_100):
            heart = kaudp.attach_quic(pair.client, mode="ping", config=LAN)
            await heart.close()
        await pair.works()


@virtually
async def test_application_traffic_may_be_reported() -> None:
    """KA-8.5-1, KA-8.5-2: where both sides say so, it counts as on UDP."""
    config = kaudp.Config.wan(interval_ms=1_000, application_traffic=True)
    both = {"peer_speaks_kaudp": True, "config": config}
    async with paired(near=both, far=both) as pair:
        await pair.up()
        before = pair.client.attached.stats.sent
        for _ in range(100):
            pair.client.attached.note_application_sent()
            pair.server.attached.note_application_received()
            await asyncio.sleep(0.1)
        # A round trip is still due every two intervals.
        assert 4 <= pair.client.attached.stats.sent - before <= 8


@virtually
async def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name's addresses cannot be had from the machine's resolver, so the look-up is played."""
    async with kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), config=LAN) as server:
        port = server.address[1]

        def reachable(candidates: Any, name: str) -> list[Any]:
            return [("127.0.0.9", port), ("127.0.0.1", port)]

        monkeypatch.setattr(sockets, "reachable", reachable)
        url = f"quic://localhost:{port}"
        async with kaudp.connect(url, quic=client_configuration(), config=LAN) as connection:
            await event_of(connection, kaudp.SessionUp)
            assert connection.address == ("127.0.0.1", port)


@virtually
async def test_handshakes_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """KA-11-2: a connection too many is closed, and one that has gone makes room."""
    made: list[Any] = []
    attach = server_module.QuicAttachment

    def counting(*arguments: Any, **named: Any) -> Any:
        made.append(attach(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(server_module, "QuicAttachment", counting)
    config = kaudp.Config.server(max_embryos=1)
    async with linked(max_sessions=1, config=config) as (server, connection):
        url = f"quic://127.0.0.1:{server.address[1]}"
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                other = kaudp.connect(url, quic=client_configuration(), config=LAN)
                await stack.enter_async_context(other)
            await asyncio.sleep(1)
            assert len(made) == 2
        assert connection.state is kaudp.State.UP
