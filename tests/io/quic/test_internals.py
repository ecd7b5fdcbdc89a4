"""What kaudp reads of aioquic's private attributes means what it did, on real connections.

An upgrade of aioquic that moves or renames one, or changes its meaning, fails here.
"""

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.server import serve
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.logger import QuicLogger
from aioquic.quic.packet import pull_quic_transport_parameters

import kaudp.io.quic
from kaudp.io.quic import internals
from kaudp.io.quic.internals import Closing
from tests.io.quic.pairs import (
    CLIENT,
    SERVER,
    Application,
    Transport,
    applications,
    paired,
    really,
    server_configuration,
    until,
    virtually,
)

FOLDER = Path(kaudp.io.quic.__path__[0])
BARE: dict[str, Any] = {"near": None, "far": None}


@virtually
async def test_the_connection_and_the_transport_of_a_protocol() -> None:
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True))
    protocol = Application(quic)
    assert internals.connection_of(protocol) is quic
    assert internals.transport_of(protocol) is None
    async with paired(**BARE) as pair:
        transport = internals.transport_of(pair.client)
        assert isinstance(transport, Transport)
        assert transport.address == CLIENT


@really
async def test_the_transport_of_a_server_is_that_of_its_socket() -> None:
    server = await serve("127.0.0.1", 0, configuration=server_configuration())
    transport = internals.server_transport(server)
    assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
    server.close()
    assert transport.is_closing()
    await asyncio.sleep(0)


@virtually
async def test_the_handshake_is_complete_when_it_is() -> None:
    pair = applications()
    for side in pair:
        assert not internals.handshake_complete(side.quic)
    pair.client.connect(SERVER)
    while not (pair.client.done and pair.server.done):
        for side in pair:
            assert internals.handshake_complete(side.quic) == side.done
        await asyncio.sleep(0.001)
    for side in pair:
        assert internals.handshake_complete(side.quic)
        side.close()
        await side.wait_closed()


@pytest.mark.parametrize(
    ("client", "server", "agreed"),
    [
        (["a", "b"], ["b"], "b"),
        (["kaudp/1"], ["kaudp/1"], "kaudp/1"),
        (None, None, None),
    ],
)
@virtually
async def test_the_alpn_is_the_one_that_was_negotiated(
    client: Any, server: Any, agreed: str | None
) -> None:
    async with paired({"alpn_protocols": client}, {"alpn_protocols": server}, **BARE) as pair:
        for side in pair:
            assert internals.alpn(side.quic) == agreed


@virtually
async def test_the_peers_address_is_where_packets_go() -> None:
    pair = applications()
    for side in pair:
        assert internals.peer_address(side.quic) is None
    async with paired(**BARE) as pair:
        assert internals.peer_address(pair.client.quic) == SERVER
        assert internals.peer_address(pair.server.quic) == CLIENT
        moved = ("192.0.2.7", 7)
        pair.network.aliases[moved] = CLIENT
        pair.client.quic.send_ping(1)
        pair.client.transmit()
        await asyncio.sleep(0.05)
        assert internals.peer_address(pair.server.quic) == moved
        assert pair.network.sent[-1][3] in (moved, SERVER)


@pytest.mark.parametrize("limit", [None, 1, 160, 65_536])
@virtually
async def test_the_datagram_limit_is_the_peers(limit: int | None) -> None:
    async with paired(server={"max_datagram_frame_size": limit}, **BARE) as pair:
        assert internals.peer_datagram_limit(pair.client.quic) == (limit or 0)
        assert internals.peer_datagram_limit(pair.server.quic) == 65_536


@virtually
async def test_the_datagram_limit_is_none_before_the_handshake() -> None:
    pair = applications()
    for side in pair:
        assert internals.peer_datagram_limit(side.quic) == 0


@pytest.mark.parametrize("length", [1, 8, 20])
@pytest.mark.parametrize("size", [1_200, 1_452])
@virtually
async def test_the_room_in_a_packet_is_what_a_datagram_may_fill(size: int, length: int) -> None:
    """One byte more waits in aioquic's queue for ever."""
    sides = {"connection_id_length": length, "max_datagram_size": size}
    async with paired(sides, sides, **BARE) as pair:
        quic = pair.client.quic
        room = internals.packet_room(quic)
        assert room == size - 1 - length - 2 - 16
        overhead = 1 + 2
        pair.client.send_datagram(bytes(room - overhead))
        await until(lambda: pair.server.datagrams)
        assert len(pair.server.datagrams[0]) == room - overhead
        assert (
            max(len(data) for _, data, _, target in pair.network.sent if target == SERVER) == size
        )
        pair.client.send_datagram(bytes(room - overhead + 1))
        await asyncio.sleep(1)
        assert len(pair.server.datagrams) == 1
        assert len(internals.waiting_datagrams(quic)) == 1


@virtually
async def test_datagrams_wait_until_they_are_sent_and_keep_their_identity() -> None:
    """The carrier finds its own by identity, so aioquic has to keep the object."""
    async with paired(**BARE) as pair:
        quic = pair.client.quic
        assert list(internals.waiting_datagrams(quic)) == []
        ours, other = bytes(range(100)), bytearray(range(100))
        quic.send_datagram_frame(ours)
        quic.send_datagram_frame(bytes(other))
        waiting = list(internals.waiting_datagrams(quic))
        assert waiting[0] is ours
        assert [datagram is ours for datagram in waiting] == [True, False]
        pair.client.transmit()
        assert list(internals.waiting_datagrams(quic)) == []
        pair.network.lose = lambda data, source, target: True
        pair.client.send_stream(bytes(100_000))
        quic.send_datagram_frame(ours)
        pair.client.transmit()
        assert next(iter(internals.waiting_datagrams(quic))) is ours


@virtually
async def test_a_stream_waits_while_it_has_data_that_was_never_sent() -> None:
    async with paired(**BARE) as pair:
        quic = pair.client.quic
        assert not internals.stream_waits(quic, 2)
        quic.send_stream_data(2, b"x")
        assert internals.stream_waits(quic, 2)
        pair.client.transmit()
        await asyncio.sleep(0.05)
        assert not internals.stream_waits(quic, 2)
        # What is acknowledged and ended aioquic forgets.
        pair.client.send_stream(b"y", stream_id=2, end=True)
        await asyncio.sleep(0.1)
        quic.send_ping(1)
        pair.client.transmit()
        await asyncio.sleep(0.1)
        assert 2 not in quic._streams
        assert not internals.stream_waits(quic, 2)
        # With the window full it waits.
        pair.network.lose = lambda data, source, target: True
        pair.client.send_stream(bytes(100_000), stream_id=6)
        pair.client.send_stream(b"z", stream_id=10)
        assert internals.stream_waits(quic, 10)


@pytest.mark.parametrize(
    ("client", "server", "least"), [(5.0, 60.0, 5.0), (60.0, 7.0, 7.0), (4.0, 4.0, 4.0)]
)
@virtually
async def test_the_idle_timeout_is_when_aioquic_gives_up(
    client: float, server: float, least: float
) -> None:
    loop = asyncio.get_running_loop()
    async with paired({"idle_timeout": client}, {"idle_timeout": server}, **BARE) as pair:
        for side in pair:
            assert internals.idle_timeout(side.quic) == least
        await asyncio.sleep(0.5)
        pair.client.quic.send_ping(1)
        pair.client.transmit()
        pair.network.lose = lambda data, source, target: True
        begun = loop.time()
        await until(lambda: pair.client.terminated)
        assert loop.time() - begun == pytest.approx(least, abs=0.1)


@virtually
async def test_the_idle_timeout_is_the_least_that_three_probe_timeouts_may_become() -> None:
    brief = {"idle_timeout": 0.001}
    fresh = applications({"idle_timeout": 0.001}).client.quic
    assert internals.idle_timeout(fresh) == pytest.approx(3 * internals.probe_timeout(fresh))
    async with paired(brief, {**brief}, **BARE, delay=0.02) as pair:
        quic = pair.client.quic
        assert internals.idle_timeout(quic) < quic._idle_timeout()
        for _ in range(60):
            await pair.client.ping()
        settled = quic._idle_timeout()
        assert internals.idle_timeout(quic) <= settled
        assert internals.idle_timeout(quic) == pytest.approx(settled, rel=0.1)


@virtually
async def test_no_more_than_the_congestion_window_leaves_at_once() -> None:
    async with paired(**BARE, delay=0.1) as pair:
        await asyncio.sleep(1)
        window = internals.congestion_window(pair.client.quic)
        assert window >= 10 * 1200
        before = len(pair.network.sent)
        pair.client.send_stream(bytes(100_000))
        await asyncio.sleep(0.15)
        left = sum(
            len(data) for _, data, _, target in pair.network.sent[before:] if target == SERVER
        )
        assert window - 1200 <= left <= window


@virtually
async def test_the_streams_that_are_open_are_known() -> None:
    async with paired(**BARE) as pair:
        assert not internals.open_streams(pair.server.quic)
        stream = pair.client.send_stream(b"hello")
        await until(lambda: pair.server.streams)
        assert list(internals.open_streams(pair.server.quic)) == [stream]


@virtually
async def test_the_acknowledgement_delay_is_the_peers() -> None:
    async with paired(**BARE) as pair:
        assert internals.max_ack_delay(pair.client.quic) == pytest.approx(0.025)
        ours = pair.client.quic._serialize_transport_parameters()
        assert pull_quic_transport_parameters(Buffer(data=ours)).max_ack_delay == 25


@virtually
async def test_a_stream_is_reserved_from_its_creation_to_its_end() -> None:
    async with paired(**BARE) as pair:
        assert not internals.reserved_stream(pair.client, 2)
        _, writer = await pair.client.create_stream(is_unidirectional=True)
        assert internals.reserved_stream(pair.client, 2)
        writer.close()
        assert not internals.reserved_stream(pair.client, 6)


@virtually
async def test_a_connection_is_over_when_it_has_drained() -> None:
    async with paired(**BARE) as pair:
        assert not internals.ended(pair.client.quic)
        pair.client.close()
        assert not internals.ended(pair.client.quic)
        await until(lambda: pair.client.terminated)
        assert internals.ended(pair.client.quic)


@virtually
async def test_the_probe_timeout_and_the_round_trip_follow_the_path() -> None:
    """RFC 9002, 6.2.1: smoothed + max(4 * variance, 1 ms) + the peer's max_ack_delay, 25 ms."""
    pair = applications()
    assert internals.smoothed_rtt(pair.client.quic) == 0
    assert internals.probe_timeout(pair.client.quic) == pytest.approx(0.2)
    for delay in (0.005, 0.04):
        async with paired(**BARE, delay=delay) as pair:
            for _ in range(40):
                await pair.client.ping()
            quic = pair.client.quic
            smoothed = internals.smoothed_rtt(quic)
            assert smoothed == pytest.approx(2 * delay, rel=0.1)
            timeout = internals.probe_timeout(quic)
            assert smoothed + 0.025 < timeout < smoothed + 0.025 + 2 * delay


@virtually
async def test_the_reset_token_is_the_servers_for_the_id_in_use() -> None:
    pair = applications()
    assert internals.reset_token(pair.client.quic) == b""
    async with paired(**BARE) as pair:
        tokens = {cid.cid: cid.stateless_reset_token for cid in pair.server.quic._host_cids}
        first = internals.reset_token(pair.client.quic)
        assert len(first) == 16
        assert first == tokens[pair.client.quic._peer_cid.cid]
        await asyncio.sleep(0.1)
        tokens = {cid.cid: cid.stateless_reset_token for cid in pair.server.quic._host_cids}
        pair.client.change_connection_id()
        second = internals.reset_token(pair.client.quic)
        assert second == tokens[pair.client.quic._peer_cid.cid]
        assert second != first


@virtually
async def test_which_side_closes_and_why_is_known_before_aioquic_tells() -> None:
    async with paired(**BARE) as pair:
        for side in pair:
            assert internals.closing(side.quic) is Closing.NEITHER
            assert internals.close_event(side.quic) is None
        pair.server.close(error_code=5, reason_phrase="why")
        assert internals.closing(pair.server.quic) is Closing.LOCAL
        await asyncio.sleep(0.006)
        assert internals.closing(pair.client.quic) is Closing.PEER
        for side in pair:
            event = internals.close_event(side.quic)
            assert event is not None
            assert (event.error_code, event.frame_type, event.reason_phrase) == (5, None, "why")
            assert not side.terminated
        for side in pair:
            await side.wait_closed()
            assert internals.closing(side.quic) is Closing.NEITHER


@virtually
async def test_an_idle_end_is_nobodys() -> None:
    brief = {"idle_timeout": 1.0}
    async with paired(brief, brief, **BARE) as pair:
        await until(lambda: pair.client.terminated)
        assert internals.closing(pair.client.quic) is Closing.NEITHER
        event = internals.close_event(pair.client.quic)
        assert event is not None
        assert event.reason_phrase == "Idle timeout"


@virtually
async def test_the_trace_is_the_connections_own() -> None:
    logger = QuicLogger()
    async with paired({"quic_logger": logger}, **BARE) as pair:
        trace = internals.trace(pair.client.quic)
        assert trace is not None
        trace.log_event(category="kaudp", event="test", data={})
        (told,) = logger.to_dict()["traces"]
        assert told["events"][-1]["name"] == "kaudp:test"
        assert internals.trace(pair.server.quic) is None


def test_every_function_of_the_module_is_tested_here() -> None:
    """One that is added is not forgotten."""
    tree = ast.parse((FOLDER / "internals.py").read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {name for name in functions if not private(name)}
    here = ast.parse(Path(__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(here)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "internals"
    }
    assert names - used == set()


# Statically


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def last_name(node: ast.expr) -> str:
    """Give the last name of a chain such as self.protocol or internals.connection_of(x)."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def private_reads(source: str) -> list[str]:
    """Name what a module reads that begins with _ of anything but itself and its own class."""
    own = {"self", "cls"}
    of_tuples = {"_replace", "_make", "_asdict", "_fields"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            owner = node.value
            if isinstance(owner, ast.Name) and (owner.id in own or owner.id[0].isupper()):
                continue
            if node.attr in of_tuples or ast.unparse(owner) == "super()":
                continue
            found.append(f"{ast.unparse(owner)}.{node.attr}")
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr", "delattr")
            and len(node.args) > 1
            and isinstance(node.args[1], ast.Constant)
            and private(str(node.args[1].value))
        ):
            found.append(ast.unparse(node))
    return found


def assignments(source: str) -> list[str]:
    """Name what a module assigns to, or deletes, of the attributes of anything but `self`."""
    targets: list[ast.expr] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.Delete):
            targets += node.targets
        elif isinstance(node, (ast.AugAssign | ast.AnnAssign | ast.For, ast.NamedExpr)):
            targets.append(node.target)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets.append(node.optional_vars)
    return [
        ast.unparse(part)
        for target in targets
        for part in ast.walk(target)
        if isinstance(part, ast.Attribute) and last_name(part.value) != "self"
    ]


MODULES = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", [name for name in MODULES if name != "internals.py"])
def test_no_other_module_reads_what_is_private_to_aioquic(name: str) -> None:
    """An upgrade is then a matter of one module."""
    assert private_reads((FOLDER / name).read_text()) == []


@pytest.mark.parametrize("path", sorted((FOLDER.parent).glob("*.py")), ids=lambda path: path.name)
def test_nothing_outside_reads_it_either(path: Path) -> None:
    source = path.read_text()
    assert "._quic" not in source
    assert "_network_paths" not in source


def test_internals_reads_and_assigns_nothing() -> None:
    """Its docstring says so: nothing there writes to what is aioquic's."""
    source = (FOLDER / "internals.py").read_text()
    assert len(private_reads(source)) > 10
    assert assignments(source) == []
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Global | ast.Nonlocal)
        if isinstance(node, ast.Call):
            called = last_name(node.func)
            assert called not in ("setattr", "delattr", "append", "pop", "update", "clear", "add")


def test_no_module_assigns_to_what_is_private_to_aioquic() -> None:
    for name in MODULES:
        for target in assignments((FOLDER / name).read_text()):
            assert not private(target.rpartition(".")[2]), (name, target)


def test_the_static_checks_find_what_they_look_for() -> None:
    assert private_reads("x = protocol._quic") == ["protocol._quic"]
    assert private_reads("x = self._a._b") == ["self._a._b"]
    assert private_reads("getattr(quic, '_state')") == ["getattr(quic, '_state')"]
    assert private_reads("x = self._a\ny = Carriage._b") == []
    assert assignments("quic._state = 1\nself.x = 2\nfor quic.y in z: pass") == [
        "quic._state",
        "quic.y",
    ]
