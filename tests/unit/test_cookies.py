"""core/cookies and wire/cookies: the secret as it ages, and the frame that brings a cookie."""

from random import Random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kaudp.core.cookies import COOKIE_SECRET_LIFETIME, CookieJar
from kaudp.errors import DropReason, Refused
from kaudp.wire import cookies
from kaudp.wire.codec import NO_OPTIONS, InitPayload, Parameters
from kaudp.wire.grammar import COOKIE_NONCE_BYTES
from kaudp.wire.suites import CarriedInitiation, NoiseInitiation, OpenedNoiseInit
from tests.worlds import KEY

HERE, THERE = ("192.0.2.1", 5), ("192.0.2.1", 6)
COOKIE = bytes(range(16))
SAID = InitPayload(b"instance", b"epoch---", bytes(8), Parameters(1, 2, 3, 4, 0), NO_OPTIONS)


def jar() -> CookieJar:
    return CookieJar(Random(1).randbytes)


def initiation() -> NoiseInitiation:
    return NoiseInitiation(KEY, b"session-", SAID, Random(2).randbytes, cookies.NO_COOKIE)


def test_a_cookie_is_right_for_its_source_and_key() -> None:
    """KA-4.5-3."""
    maker = jar()
    cookie = maker.cookie(HERE, b"key", 5)
    assert cookie == maker.cookie(("::ffff:192.0.2.1", 5), b"key", 6)
    assert maker.is_right(cookie, HERE, b"key", 7)
    assert not maker.is_right(cookie, THERE, b"key", 7)
    assert not maker.is_right(cookie, HERE, b"kez", 7)
    assert not maker.is_right(cookies.NO_COOKIE, HERE, b"key", 7)
    opaque = maker.cookie("opaque", b"key", 7)
    assert maker.is_right(opaque, "opaque", b"key", 7)
    assert not jar().is_right(bytes(16), HERE, b"key", 0), "a jar that never made one"


def test_a_secret_makes_cookies_for_120_s_and_is_honoured_to_240_s() -> None:
    """KA-4.5-3."""
    maker, start = jar(), 1_000
    first = maker.cookie(HERE, b"key", start)
    assert maker.cookie(HERE, b"key", start + COOKIE_SECRET_LIFETIME) == first
    replaced = start + COOKIE_SECRET_LIFETIME + 1
    second = maker.cookie(HERE, b"key", replaced)
    assert second != first
    for now in (replaced, start + 2 * COOKIE_SECRET_LIFETIME):
        assert maker.is_right(first, HERE, b"key", now)
        assert maker.is_right(second, HERE, b"key", now)
    assert not maker.is_right(first, HERE, b"key", start + 2 * COOKIE_SECRET_LIFETIME + 1)
    assert maker.is_right(second, HERE, b"key", start + 2 * COOKIE_SECRET_LIFETIME + 1)


def test_the_frame_opens_under_its_init_only() -> None:
    """KA-4.5-4 KA-4.5-5: with the key as the text derives it."""
    side = initiation()
    opened = OpenedNoiseInit(KEY, side.init)
    frame = opened.ask_for_cookie(COOKIE, Random(3).randbytes)
    nonce = Random(3).randbytes(COOKIE_NONCE_BYTES)
    assert len(frame) == 60
    assert frame[:28] == b"\x0b\x03\x81\x01session-" + nonce
    assert side.open_cookie(frame) == COOKIE
    salt = side.init[-16:] + nonce
    key = HKDF(hashes.SHA256(), 32, salt, b"kaudp/1 cookie").derive(KEY.secret)
    assert AESGCM(key).decrypt(bytes(12), frame[28:], frame[:28]) == COOKIE
    for place in (4, 12, 28, 59):
        wrong = frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]
        with pytest.raises(Refused) as refused:
            side.open_cookie(wrong)
        assert refused.value.reason is DropReason.BAD_TAG
        assert not refused.value.consumed


def test_a_cookie_of_zeros_is_none() -> None:
    """KA-4.5-5 KA-4.5-1: zeros mean that there is no cookie."""
    side = initiation()
    frame = cookies.seal_cookie(KEY.secret, side.init, b"session-", bytes(16), cookies.NO_COOKIE)
    with pytest.raises(Refused, match=r"^malformed: a cookie of zeros$") as refused:
        side.open_cookie(frame)
    assert refused.value.consumed


def test_inside_quic_there_are_no_cookies() -> None:
    """KA-14.1-4: such bytes are the application's."""
    with pytest.raises(Refused, match=r"^not_kaudp: no cookies inside QUIC$") as refused:
        CarriedInitiation(b"session-", SAID).open_cookie(bytes(60))
    assert refused.value.reason is DropReason.NOT_KAUDP
    assert not refused.value.consumed
