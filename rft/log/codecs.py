"""Says which codecs our Kafka libraries can use: anyone may compress batches, and a topic may demand a codec."""

from __future__ import annotations

from importlib.util import find_spec

from kafka import codec as kafka_codec

CODECS = ("gzip", "snappy", "lz4", "zstd")
_PACKAGES = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}
"""What kafka-python needs for a codec. aiokafka, with which the processors work, needs cramjam for each of these."""


def missing_packages(codec: str) -> list[str]:
    """Return the packages that are missing for a codec."""
    if codec not in _PACKAGES:
        return []
    absent = [] if getattr(kafka_codec, f"has_{codec}")() else [_PACKAGES[codec]]
    return absent if find_spec("cramjam") else [*absent, "cramjam"]


def unreadable_codecs() -> dict[str, list[str]]:
    """Return the packages that are missing, by the codec that cannot be used without them."""
    found = {codec: missing_packages(codec) for codec in CODECS}
    return {codec: packages for codec, packages in found.items() if packages}
