"""core/control: versions of what is told until it is confirmed."""

import pytest

from kaudp.core.control import CONTROL_OPTIONS, MAX_UNCONFIRMED, Control, control_options
from kaudp.errors import SessionStateError
from kaudp.wire.codec import NO_OPTIONS, Options, Parameters

KEY_ID = b"key id--"
ALL = Options(parameters=Parameters(1, 2, 3, 4, 5), pause_ms=1, slow_down_us=2)._replace(
    next_key=KEY_ID, admin=0
)


def test_at_first_nothing_was_said() -> None:
    """KA-8.6-1: version 0 is that of a side that never changed its control state."""
    control = Control()
    assert (control.version, control.acked) == (0, 0)
    assert control.pending is NO_OPTIONS
    assert not control.waits
    assert control.confirmed_by(0) is NO_OPTIONS


def test_a_change_is_told_beside_what_is_not_confirmed_yet() -> None:
    """KA-8.6-1: under one version, the newest, which alone confirms it all."""
    control = Control()
    control.change(pause_ms=5)
    control.change(admin=0)
    assert (control.version, control.waits) == (2, True)
    assert control.pending == Options(pause_ms=5, admin=0)
    for other in (0, 1, 3):
        assert control.confirmed_by(other) is NO_OPTIONS
    assert control.confirmed_by(2) == Options(pause_ms=5, admin=0)
    assert not control.waits
    assert control.confirmed_by(2) is NO_OPTIONS, "once"
    control.change(slow_down_us=1)
    assert control.pending == Options(slow_down_us=1)


def test_version_255_is_followed_by_1() -> None:
    """KA-8.6-1: 0 is kept for "never"."""
    control, seen = Control(), []
    for _ in range(256):
        control.change(admin=1)
        seen.append(control.version)
        control.confirmed_by(control.version)
    assert seen == [*range(1, 256), 1]


def test_254_changes_without_a_confirmation_are_the_most() -> None:
    """KA-8.6-4: one more could take the version that was confirmed last."""
    control = Control()
    control.change(admin=1)
    control.confirmed_by(1)
    for _ in range(MAX_UNCONFIRMED):
        assert not control.exhausted
        control.change(admin=1)
    assert control.exhausted
    version = control.version
    with pytest.raises(
        SessionStateError, match=r"^expected the peer to confirm one of 254 changes"
    ):
        control.require_room()
    assert (control.version, control.pending.admin) == (version, 1)
    control.confirmed_by(version)
    control.change(admin=0)
    assert not control.exhausted


def test_a_pause_that_is_over_is_told_no_more() -> None:
    """KA-8.6-1: the rest is; where there is no rest, nothing waits."""
    control = Control()
    control.change(pause_ms=5)
    control.change(admin=1)
    control.withdraw_pause()
    assert control.pending == Options(admin=1)
    control.confirmed_by(2)
    control.change(pause_ms=5)
    control.withdraw_pause()
    assert not control.waits


def test_control_options_alone_are_control_state() -> None:
    """KA-8.6-2: what else a frame holds is not, and a value of zero is one."""
    assert control_options(NO_OPTIONS) is NO_OPTIONS
    assert control_options(Options(pad=3, path_challenge=bytes(8))) is NO_OPTIONS
    assert control_options(ALL._replace(pad=3, clock_us=4, close_reason=0)) == ALL
    for name in CONTROL_OPTIONS:
        assert getattr(control_options(ALL), name) == getattr(ALL, name)
    assert control_options(Options(pause_ms=0)) == Options(pause_ms=0)


def test_the_peers_state_is_taken_once_and_only_with_its_options() -> None:
    """KA-8.6-2."""
    control = Control()
    assert not control.learn(0, Options(admin=1), 0), "version 0 says nothing"
    assert not control.learn(7, NO_OPTIONS, 0)
    assert not control.learn(7, Options(pad=1), 0)
    assert control.acked == 0
    assert control.learn(7, Options(admin=1), 0)
    assert control.acked == 7
    assert not control.learn(7, Options(admin=0), 0)
    assert control.learn(6, Options(admin=0), 0), "it only has to be another"
    assert control.acked == 6


def test_the_peer_knows_that_we_know_when_it_confirms_the_next_frame() -> None:
    """KA-8.8-3: told once for each change."""
    control = Control()
    assert not control.peer_knows(99)
    control.learn(1, Options(admin=1), 4)
    assert not control.peer_knows(4)
    assert control.peer_knows(5)
    assert not control.peer_knows(6)
    control.learn(2, Options(admin=0), 8)
    assert control.peer_knows(11)


def test_new_keys_begin_with_versions_anew() -> None:
    """KA-8.6-3: what is to be told still is version 1, nothing is version 0."""
    control = Control()
    for _ in range(MAX_UNCONFIRMED):
        control.change(pause_ms=5)
    control.learn(9, Options(admin=1), 4)
    control.begin_anew(Options(admin=1))
    assert (control.version, control.acked, control.pending) == (1, 0, Options(admin=1))
    assert not control.exhausted
    assert not control.peer_knows(5)
    for _ in range(MAX_UNCONFIRMED - 1):
        control.change(admin=1)
    assert control.exhausted, "what is told again counts as one"
    control.begin_anew(Options())
    assert control.version == 0
    assert control.pending is NO_OPTIONS
    assert not control.waits
