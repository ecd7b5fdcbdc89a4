"""How often: what QUIC's own timers allow. KA-14.6-1."""

import asyncio
from typing import Any

import pytest

import kaudp
from kaudp.io.quic import internals
from tests.io.quic.pairs import (
    HEARTS,
    client_configuration,
    linked,
    paired,
    server_configuration,
    until,
    virtually,
)

MS = 1_000_000
WAN: dict[str, Any] = {"peer_speaks_kaudp": True}
PING: dict[str, Any] = {"mode": "ping"}
WAYS = {
    "datagram": (WAN, WAN),
    "stream": ({**WAN, "mode": "stream"}, WAN),
    "ping": (PING, None),
}
# The greatest that there is, 2^62 - 1 ms, as near as a float comes to it from below.
HUGE_S = (2**62 - 2_048) / 1_000


@pytest.mark.parametrize("way", WAYS)
@virtually
async def test_a_short_idle_timeout_halves_the_interval_and_says_so(way: str) -> None:
    """KA-14.6-1: 5 s were asked for, the peer allows one without a packet."""
    near, far = WAYS[way]
    async with paired(server={"idle_timeout": 1.0}, near=near, far=far) as pair:
        await pair.up()
        (adjusted,) = pair.client.heard_of(kaudp.IntervalAdjusted)
        assert (adjusted.asked, adjusted.interval) == (5_000 * MS, 500 * MS)
        assert "idle timeout is 1 s" in adjusted.why
        assert pair.client.attached.stats.interval == 500 * MS
        assert adjusted.session is pair.client.attached.session


@pytest.mark.parametrize("way", WAYS)
@virtually
async def test_heartbeats_alone_keep_a_connection_alive(way: str) -> None:
    """KA-14.6-1: for many idle timeouts; without them it dies after one."""
    near, far = WAYS[way]
    brief = {"idle_timeout": 1.0}
    async with paired(client=brief, server=brief, near=near, far=far) as pair:
        await asyncio.sleep(60)
        for side in pair:
            assert not side.terminated
            assert not side.heard_of(kaudp.SessionSuspect)
        trips = pair.client.attached.stats.round_trips
        assert 100 <= trips <= 260
    async with paired(client=brief, server=brief, near=None, far=None) as pair:
        await asyncio.sleep(1.5)
        for side in pair:
            assert side.terminated


@virtually
async def test_a_server_of_its_own_is_kept_alive_by_its_clients() -> None:
    """KA-14.6-1: with the presets, whose server wants a probe a second at most."""
    async with linked(
        near=client_configuration(idle_timeout=1.2),
        far=server_configuration(idle_timeout=60),
        config=kaudp.Config.wan(),
    ) as (server, connection):
        await asyncio.sleep(30)
        assert connection.state is kaudp.State.UP
        assert server.sessions[0].state is kaudp.State.UP
        assert connection.stats.interval == 600 * MS


@virtually
async def test_what_a_responder_changes_of_its_settings_is_reported_too() -> None:
    """KA-14.6-1: `min_receive_interval` is a setting of the user as well."""
    async with paired(server={"idle_timeout": 1.0}, near=WAN, far=WAN) as pair:
        await pair.up()
        (adjusted,) = pair.server.heard_of(kaudp.IntervalAdjusted)
        assert (adjusted.asked, adjusted.interval) == (1_000 * MS, 500 * MS)
        assert "min_receive_interval" in adjusted.why


@virtually
async def test_what_fits_is_left_as_it_was() -> None:
    """KA-14.6-1: no event where nothing changed."""
    async with paired(near=WAN, far=WAN) as pair:
        await pair.up()
        assert pair.client.attached.stats.interval == 5_000 * MS
        for side in pair:
            assert not side.heard_of(kaudp.IntervalAdjusted)


@virtually
async def test_faster_than_quics_probe_timeout_is_slowed_down() -> None:
    """KA-14.6-1: at least 3 P div 2, on a path of 100 ms."""
    async with paired(near=HEARTS, far=HEARTS, delay=0.05) as pair:
        await until(lambda: pair.client.heard_of(kaudp.SessionUp))
        (adjusted, *_) = pair.client.heard_of(kaudp.IntervalAdjusted)
        assert adjusted.asked == 100 * MS
        assert adjusted.interval > 150 * MS
        assert "PTO" in adjusted.why


@pytest.mark.parametrize("side", ["client", "server"])
@virtually
async def test_a_huge_idle_timeout_bounds_nothing(side: str) -> None:
    """14.6: 2^62 - 1 ms is the greatest that there is."""
    sides: dict[str, Any] = {"client": {"idle_timeout": 60.0}, "server": {"idle_timeout": 60.0}}
    sides[side] = {"idle_timeout": HUGE_S}
    async with paired(**sides, near=WAN, far=WAN) as pair:
        await pair.up()
        for end in pair:
            assert not end.heard_of(kaudp.IntervalAdjusted)
        await asyncio.sleep(200)
        assert pair.client.attached.state is kaudp.State.UP


@virtually
async def test_huge_idle_timeouts_on_both_sides_bound_nothing() -> None:
    """14.6: none, or one longer than any interval: only P bounds."""
    huge = {"idle_timeout": HUGE_S}
    slow = {**WAN, "config": kaudp.Config.wan(interval_ms=500_000, max_peer_interval_ms=500_000)}
    async with paired(client=huge, server=huge, near=slow, far=slow) as pair:
        await pair.up()
        assert pair.client.attached.stats.interval == 500_000 * MS
        assert not pair.client.heard_of(kaudp.IntervalAdjusted)


@pytest.mark.parametrize("delay", [0.005, 0.02, 0.05, 0.1])
@virtually
async def test_a_peer_without_idle_timeout_is_kept_alive(delay: float) -> None:
    """14.6: aioquic takes 0 for three PTO, and the PTO falls as the round trip settles."""
    async with paired(server={"idle_timeout": 0.0}, near=WAN, far=WAN, delay=delay) as pair:
        await asyncio.sleep(60)
        for side in pair:
            assert not side.terminated


@pytest.mark.parametrize("delay", [0.005, 0.02, 0.05, 0.1, 0.15, 0.3])
@virtually
async def test_an_idle_timeout_of_a_second_on_a_long_path(delay: float) -> None:
    """KA-14.6-1: alive with heartbeats as the only traffic."""
    brief = {"idle_timeout": 1.0}
    async with paired(client=brief, server=brief, near=WAN, far=WAN, delay=delay) as pair:
        await asyncio.sleep(60)
        for side in pair:
            assert not side.terminated


@pytest.mark.parametrize(
    "config",
    [
        kaudp.Config.wan(multiplier=100, max_peer_interval_ms=10_000),
        kaudp.Config.wan(detector=kaudp.DetectorKind.DEADLINE, deadline_ms=6_000),
        kaudp.Config.lan(multiplier=255, max_peer_interval_ms=5_000),
    ],
)
@virtually
async def test_a_peers_slow_acknowledgements_make_no_illegal_settings(
    config: kaudp.Config,
) -> None:
    """KA-12-1: a peer may advertise a `max_ack_delay` of 16 s, and P holds it."""
    async with paired(near=None, far=None) as pair:
        pair.client.quic._loss.max_ack_delay = 16.383
        assert internals.probe_timeout(pair.client.quic) > 16
        pair.server.attach(**WAN)
        pair.client.attach(**{**WAN, "config": config})
        await pair.up(1)
        (adjusted, *_) = pair.client.heard_of(kaudp.IntervalAdjusted)
        # As near to 3 P div 2 as the detection time of KA-11-1 leaves room for.
        assert adjusted.interval >= 7_000 * MS
        assert adjusted.interval * max(config.multiplier, 1) <= 1_800_000 * MS or (
            config.detector is kaudp.DetectorKind.DEADLINE
        )
