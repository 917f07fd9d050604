"""``[telemetry]``: what a role tells those who watch it."""

from __future__ import annotations

from pydantic import field_validator

from rft.config.section import Section


class TelemetryConfig(Section):
    listen: str | None = "127.0.0.1:0"
    """``host:port`` on which each role serves ``/healthz`` and ``/readyz``; ``none`` for no server. Port 0 takes a free
    one, because several roles share a machine: ``health/<role>.json`` in the run's folder names it. Anyone who reaches
    the port can read what a role waits for, so another host than loopback is for networks that you trust."""

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of ``listen``; None if nothing is served."""
        return None if self.listen is None else split_address(self.listen)


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 host stands in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    well_formed = colon and host and (bracketed or ":" not in host)
    if not well_formed or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(
            f"'{text}' is no address: write host:port, such as 127.0.0.1:0 (any free port) or 0.0.0.0:9464, or none"
        )
    return host.strip("[]") if bracketed else host, int(port)
