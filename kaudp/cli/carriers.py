"""What carries the heartbeats of `kaudp ping`: what it is told, can measure, and may fail at."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from kaudp.events import ConnectFailed, ModeChosen, QuicMode
from kaudp.wire.keys import PresharedKey

_ALERT: Final = re.compile(r"TLS alert (?P<name>\w+)(?:, (['\"])(?P<phrase>.*)\2)?")
_IDLE: Final = "idle timeout of the QUIC connection"
_NO_QUIC: Final = "no answer to QUIC's handshake"
_NO_KAUDP: Final = "QUIC is up, but no answer"


class Carrier:
    """A way to the peer; `settings` are its arguments of `kaudp.connect`.

    `described` is what the first line says of it, empty while there is nothing to say yet.
    `loss_unknown` says why there is no loss to report, empty where there is.
    """

    described = ""
    loss_unknown = ""
    rtt_is_upper_bound = False

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.settings = settings

    @property
    def facts(self) -> dict[str, Any]:
        """What `described` says, as plain values."""
        raise NotImplementedError

    @property
    def measures(self) -> dict[str, Any]:
        """How far what is measured can be relied on, as plain values."""
        raise NotImplementedError

    def no_answer(self, failure: ConnectFailed | None) -> str:
        """Say in a sentence what was expected, what came, and what may help."""
        raise NotImplementedError


class UdpCarrier(Carrier):
    """Datagrams of kaudp's own, under a key."""

    def __init__(self, name: str, key: PresharedKey) -> None:
        super().__init__(name, {"key": key})
        self._key_id = key.key_id.hex()
        self.described = f", key id {self._key_id}"

    @property
    def facts(self) -> dict[str, Any]:
        """The key's id."""
        return {"key_id": self._key_id}

    @property
    def measures(self) -> dict[str, Any]:
        """Nothing: all is known."""
        return {}

    def no_answer(self, failure: ConnectFailed | None) -> str:
        """Name a wrong key among the causes: it looks like nobody."""
        told = failure is not None and failure.unreachable
        hint = " The network reported the address unreachable." if told else ""
        return (
            f"no authenticated answer from {self.name}.{hint} Nothing listens there, the path "
            "drops UDP, or the key is wrong: a server is silent to strangers."
        )


class QuicCarrier(Carrier):
    """A QUIC connection; how it carries heartbeats is known when its handshake is done."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        super().__init__(name, settings)
        self._mode: QuicMode | None = None
        self._why: str | None = None

    def choose(self, event: ModeChosen) -> None:
        """Take note of the mode."""
        self._mode, self._why = event.mode, event.why
        self.described = f", mode {event.mode.value}: {event.why}"
        self.rtt_is_upper_bound = event.mode is QuicMode.PING
        if event.mode is not QuicMode.DATAGRAM:
            self.loss_unknown = "QUIC repeats what is lost"

    @property
    def facts(self) -> dict[str, Any]:
        """The mode and why it is that one."""
        return {"mode": self._mode and self._mode.value, "why": self._why}

    @property
    def measures(self) -> dict[str, Any]:
        """What QUIC hides."""
        return {
            "rtt_is_upper_bound": self.rtt_is_upper_bound,
            "loss_unknown": self.loss_unknown or None,
        }

    def no_answer(self, failure: ConnectFailed | None) -> str:
        """Tell TLS's refusals from silence, and that from a server which knows no kaudp."""
        detail = failure.detail if failure is not None else ""
        alert = _ALERT.search(detail)
        if alert is not None and alert["name"] in _REFUSALS:
            return _REFUSALS[alert["name"]](self, alert["phrase"] or alert["name"])
        if self._mode is not None and detail.startswith(_NO_KAUDP):
            return (
                f"expected an answer to heartbeats in mode {self._mode.value} from {self.name}, "
                "got none, though QUIC works. --mode ping needs nothing but QUIC."
            )
        if not detail or detail in (_IDLE, _NO_QUIC):
            return (
                f"expected an answer by QUIC from {self.name}, got none. Nothing listens there, "
                "the path drops UDP, or what listens is no QUIC server: kaudp over UDP is pinged "
                "as HOST:PORT, with a key."
            )
        return f"expected a QUIC connection to {self.name}, got: {detail}."

    def untrusted(self, phrase: str) -> str:
        """Say why the certificate was not accepted."""
        return (
            f"expected a valid certificate of {self.name} from an authority that is trusted, "
            f"got: {phrase}. --ca FILE trusts the one in FILE, --insecure accepts any."
        )

    def outdated(self, phrase: str) -> str:
        """Say that no authority can help."""
        return (
            f"expected a certificate of {self.name} that is valid today, got: {phrase}. "
            "--insecure accepts any."
        )

    def unspoken(self, _: str) -> str:
        """Say which protocols the server was offered."""
        return (
            f"expected {self.name} to speak {_alternatives(self.settings['alpn'])} (ALPN), "
            "got: none of these. --alpn NAME offers another."
        )


def _alternatives(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


_REFUSALS: Final[dict[str, Callable[[QuicCarrier, str], str]]] = {
    "bad_certificate": QuicCarrier.untrusted,
    "certificate_expired": QuicCarrier.outdated,
    "no_application_protocol": QuicCarrier.unspoken,
}
