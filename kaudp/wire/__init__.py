"""Bytes: the layout, the codec, the handshake, the seal. Knows nothing of sessions."""
