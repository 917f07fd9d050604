"""Checks that batches of every codec can be read: anyone may write them, and a topic may demand one."""

from __future__ import annotations

from aiokafka import codec as aiokafka_codec
from kafka import codec as kafka_codec

CODECS = ("gzip", "snappy", "lz4", "zstd")
_PACKAGES = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}
"""What kafka-python needs for a codec. aiokafka, with which the processors read, needs cramjam for each of these."""


def missing_packages() -> dict[str, list[str]]:
    """Return the packages that are missing, by the codec that cannot be read without them."""
    missing: dict[str, list[str]] = {}
    for codec, package in _PACKAGES.items():
        absent = [] if getattr(kafka_codec, f"has_{codec}")() else [package]
        absent += [] if getattr(aiokafka_codec, f"has_{codec}")() else ["cramjam"]
        if absent:
            missing[codec] = absent
    return missing
