"""A client and a server with a real Linux NAT between them, in namespaces of their own.

Linux only, root only. Nothing here knows of kaudp but for the byte by which the router tells a
session's frames from a handshake's, and the length by which it tells a QUIC packet with a frame in
a DATAGRAM from one with acknowledgements only.

    client 10.77.1.2 -- lan [router] wan -- 10.77.2.2 server

The router may also be told to translate nothing: then the server sees the client's own address,
and sees it move.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from itertools import cycle
from pathlib import Path

TOOLS = ("ip", "nft", "conntrack", "sysctl")
PREFIX = "kaudp"
CLIENT = "10.77.1.2"
CLIENT_ELSEWHERE = "10.77.1.3"
SERVER = "10.77.2.2"
MAPPING_UNREPLIED_S = 5
MAPPING_STREAM_S = 8
COMMAND_TIMEOUT_S = 30


class Way(Enum):
    """A direction through the router; the value is the interface that its packets enter by."""

    TO_SERVER = "lan"
    TO_CLIENT = "wan"


BOTH_WAYS = (Way.TO_SERVER, Way.TO_CLIENT)

# What arrives from outside without a mapping is dropped in silence, as most NATs do: a refusal
# would be a hint to the server, and the packet would take the port of a mapping to come.
# Loss and cuts are on the forward chain: a drop in output makes the sender's sendto fail.
# A QUIC packet of aioquic's after the handshake that holds one frame of 48 bytes: UDP header 8,
# short header 11, DATAGRAM 2 + 48, tag 16.
_RULES = """
table ip nat {
    chain leaving {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }
}
table ip filter {
    chain passing {
        type filter hook forward priority filter; policy drop;
        iifname "lan" accept
        ct state established,related accept
    }
    chain arriving {
        type filter hook input priority filter;
        iifname "wan" ip protocol udp drop
    }
}
table ip trouble {
    counter frames_lan { }
    counter frames_wan { }
    counter quic_lan { }
    counter quic_wan { }
    chain lost_lan {
        @th,72,8 >= 8 counter name frames_lan
        @th,64,1 0 udp length >= 85 counter name quic_lan
        drop
    }
    chain lost_wan {
        @th,72,8 >= 8 counter name frames_wan
        @th,64,1 0 udp length >= 85 counter name quic_wan
        drop
    }
    chain passing {
        type filter hook forward priority filter - 10;
    }
}
"""
_SETTINGS = (
    "net.ipv4.ip_forward=1",
    "net.netfilter.nf_conntrack_acct=1",
    f"net.netfilter.nf_conntrack_udp_timeout={MAPPING_UNREPLIED_S}",
    f"net.netfilter.nf_conntrack_udp_timeout_stream={MAPPING_STREAM_S}",
)


class CommandError(Exception):
    """A command of the testbed failed."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One UDP entry of the router's connection tracking."""

    identity: int
    server_port: int
    inner_port: int
    outer_port: int
    packets_out: int
    packets_back: int
    assured: bool


class Namespace:
    """One network namespace, by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *arguments: str) -> list[str]:
        """Give the command line that runs a program in here, in place of `ip` itself."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def run(self, *arguments: str, text: str | None = None) -> str:
        """Run a short program in here and give what it prints. Raises `CommandError`."""
        return run(*self.command(*arguments), text=text)

    def remove(self) -> None:
        """End what runs in here, by process id, and forget the namespace."""
        with suppress(CommandError):
            for pid in run("ip", "netns", "pids", self.name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with suppress(CommandError):
            run("ip", "netns", "del", self.name)


class Network:
    """The three namespaces, and what can be done to the path between the outer two."""

    def __init__(self, name: str) -> None:
        stem = f"{PREFIX}-{os.getpid()}-{name}"
        self.client = Namespace(f"{stem}-client")
        self.router = Namespace(f"{stem}-router")
        self.server = Namespace(f"{stem}-server")
        self._outer_ports = cycle(("20000-29999", "30000-39999"))
        self._client_addresses = cycle(((CLIENT, CLIENT_ELSEWHERE), (CLIENT_ELSEWHERE, CLIENT)))

    @property
    def namespaces(self) -> tuple[Namespace, Namespace, Namespace]:
        """All three."""
        return self.client, self.router, self.server

    def build(self) -> None:
        """Make the namespaces, the links and the NAT."""
        for namespace in self.namespaces:
            run("ip", "netns", "add", namespace.name)
            _ip(namespace, "link set lo up")
        self._link(self.client, CLIENT, Way.TO_SERVER)
        self._link(self.server, SERVER, Way.TO_CLIENT)
        self.router.run("nft", "-f", "-", text=_RULES)
        # After the rules: on some kernels they load the module whose settings these are.
        self.router.run("sysctl", "-qw", *_SETTINGS)

    def remove(self) -> None:
        """Take everything down; safe at any stage of building."""
        for namespace in self.namespaces:
            namespace.remove()

    # Trouble. Each verb takes the place of the one before.

    def lose(self, percent: float, ways: Iterable[Way] = BOTH_WAYS) -> None:
        """Drop UDP packets at random, each by itself."""
        self._trouble(f"{_udp(way)} {_chance(percent)} jump lost_{way.value}" for way in ways)

    def cut(self, ways: Iterable[Way] = BOTH_WAYS) -> None:
        """Drop all UDP packets of these directions."""
        self._trouble(f"{_udp(way)} jump lost_{way.value}" for way in ways)

    def lose_frames(self, percent: float, ways: Iterable[Way] = BOTH_WAYS) -> None:
        """Drop frames of sessions at random; handshakes pass."""
        frames = f"@th,72,8 >= 8 {_chance(percent)}"
        self._trouble(f"{_udp(way)} {frames} jump lost_{way.value}" for way in ways)

    def mend(self) -> None:
        """End all trouble."""
        self._trouble(())

    def rebind(self) -> None:
        """Forget all UDP mappings; those to come have outer ports that the last ones had not."""
        rule = f'oifname "wan" meta l4proto udp masquerade to :{next(self._outer_ports)}'
        lines = ("flush chain ip nat leaving", f"add rule ip nat leaving {rule}")
        self.router.run("nft", "-f", "-", text="\n".join(lines))
        self.router.run("conntrack", "-D", "-p", "udp")

    def translate_nothing(self) -> None:
        """Route without NAT from now on."""
        self.router.run("nft", "flush", "chain", "ip", "nat", "leaving")

    def move_client(self) -> None:
        """Take the client's address away and give it another, as a change of network does."""
        before, after = next(self._client_addresses)
        lines = (
            f"addr del {before}/24 dev eth0",
            f"addr add {after}/24 dev eth0",
            f"route add default via {_gateway(after)}",
        )
        run("ip", "-n", self.client.name, "-batch", "-", text="\n".join(lines))

    def answer_nothing(self, prefix: str) -> None:
        """Let what goes to these addresses vanish in the router, as it does in a network."""
        _ip(self.router, f"route add blackhole {prefix}")

    def frames_dropped(self, way: Way) -> int:
        """Tell how many frames of sessions (no handshakes) the router has dropped so far."""
        return self._dropped(f"frames_{way.value}")

    def quic_frames_dropped(self, way: Way) -> int:
        """Tell the same of QUIC packets that are long enough to hold a frame."""
        return self._dropped(f"quic_{way.value}")

    def mappings(self) -> list[Mapping]:
        """List the UDP mappings that live."""
        listing = self.router.run("conntrack", "-L", "-p", "udp", "-o", "id")
        return [_mapping(line) for line in listing.splitlines()]

    def _dropped(self, counter: str) -> int:
        listing = self.router.run("nft", "-j", "list", "counter", "ip", "trouble", counter)
        found = [item["counter"] for item in json.loads(listing)["nftables"] if "counter" in item]
        return int(found[0]["packets"])

    def _trouble(self, rules: Iterable[str]) -> None:
        # One transaction: there is no moment with half of the rules.
        lines = ["flush chain ip trouble passing"]
        lines += [f"add rule ip trouble passing {rule}" for rule in rules]
        self.router.run("nft", "-f", "-", text="\n".join(lines))

    def _link(self, outer: Namespace, address: str, way: Way) -> None:
        gateway = _gateway(address)
        link = f"link add eth0 netns {outer.name} type veth peer name {way.value}"
        run("ip", *link.split(), "netns", self.router.name)
        for namespace, device, own in (
            (outer, "eth0", address),
            (self.router, way.value, gateway),
        ):
            _ip(namespace, f"addr add {own}/24 dev {device}")
            _ip(namespace, f"link set {device} up")
        _ip(outer, f"route add default via {gateway}")


@contextmanager
def network(name: str) -> Iterator[Network]:
    """Build a network for the length of a `with`; `name` is unique within this process."""
    built = Network(name)
    try:
        built.build()
        yield built
    finally:
        built.remove()


def run(*arguments: str, text: str | None = None) -> str:
    """Run a short command and give what it prints. Raises `CommandError`."""
    done = subprocess.run(
        arguments,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def remove_leftovers() -> list[str]:
    """Remove the namespaces of runs whose process is gone; give their names."""
    names = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line]
    left = [name for name in names if _orphaned(name)]
    for name in left:
        Namespace(name).remove()
    return left


def shortcoming() -> str | None:
    """Tell why no such network can be built here, None if it can. Builds one to see."""
    if not sys.platform.startswith("linux"):
        return f"network namespaces are Linux's, this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if not _installed(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with network("trial"):
            return None
    except CommandError as error:
        return f"no network can be built: {error}"


def _ip(namespace: Namespace, words: str) -> None:
    run("ip", "-n", namespace.name, *words.split())


def _gateway(address: str) -> str:
    return address.rpartition(".")[0] + ".1"


def _udp(way: Way) -> str:
    return f'iifname "{way.value}" meta l4proto udp'


def _chance(percent: float) -> str:
    if percent == 100:
        return ""
    return f"numgen random mod 10000 < {round(100 * percent)}"


def _mapping(line: str) -> Mapping:
    # Each key comes twice, for the way out and for the way back; the id comes once.
    words = re.findall(r"(\w+)=(\S+)", line)
    ports = {
        key: [int(value) for name, value in words if name == key] for key in ("sport", "dport")
    }
    packets = [int(value) for name, value in words if name == "packets"]
    return Mapping(
        identity=int(dict(words)["id"]),
        server_port=ports["dport"][0],
        inner_port=ports["sport"][0],
        outer_port=ports["dport"][1],
        packets_out=packets[0],
        packets_back=packets[1],
        assured="[ASSURED]" in line,
    )


def _orphaned(name: str) -> bool:
    match = re.match(rf"{PREFIX}-(\d+)-", name)
    return match is not None and not Path("/proc", match[1]).exists()


def _installed(tool: str) -> bool:
    folders = [*os.get_exec_path(), "/usr/sbin", "/sbin"]
    return any(os.access(Path(folder, tool), os.X_OK) for folder in folders)
