"""The protocol, sans-I/O: `now` and randomness are arguments, bytes and events come out."""
