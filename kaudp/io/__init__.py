"""Everything that touches a clock, a loop or a socket."""
