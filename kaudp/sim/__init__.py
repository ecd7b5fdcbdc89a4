"""Seeded links and a clock of its own, driving the same core as a socket does."""

from kaudp.sim.link import Conditions, Link
from kaudp.sim.world import Clock, Node, World

__all__ = ["Clock", "Conditions", "Link", "Node", "World"]
