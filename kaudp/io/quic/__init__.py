"""kaudp inside QUIC connections of aioquic, the extra `kaudp[quic]`. Spec: section 14."""
