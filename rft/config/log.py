"""The log: which broker, how topics are made, schema registry, archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, SecretStr, model_validator

from rft.config.section import EntityName, Name, Section


class BrokerConfig(Section):
    kind: Literal["embedded", "kafka", "external"] = "embedded"
    """``embedded``: in-memory, nothing to install. ``kafka``: a local Apache Kafka node from ``kafka_home``, durable
    in the run's folder. ``external``: any cluster named by ``bootstrap_servers``."""
    bootstrap_servers: str | None = None
    """``host:port[,host:port]``. Required for ``external``; for the other kinds the launcher fills it in."""
    kafka_home: Path | None = None
    """Folder with Apache Kafka's ``libs/`` (for ``kafka``); the environment's KAFKA_HOME if not set."""
    port: int = Field(default=0, ge=0, le=65535)
    """Loopback port of a broker that we start; 0 takes a free one."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How clients talk to an external cluster."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """For the SASL protocols."""
    sasl_username: str | None = None
    """For the SASL protocols."""
    sasl_password: SecretStr | None = None
    """Better given as RFT_BROKER__SASL_PASSWORD than in a file."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the broker's certificate; the system's CAs if not set."""
    ssl_certfile: Path | None = None
    """PEM client certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """PEM key of ``ssl_certfile``."""
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must name the host that we connect to."""
    connect_timeout_s: float = Field(default=4.0, gt=0, le=120)
    """How long a role waits for the broker at its start before it gives up with the cause."""

    @model_validator(mode="after")
    def _complete(self) -> BrokerConfig:
        if self.kind == "external" and not self.bootstrap_servers:
            raise ValueError("kind = 'external' needs bootstrap_servers = 'host:port'")
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"security_protocol = '{self.security_protocol}' needs sasl_username and sasl_password")
        return self


class LogConfig(Section):
    namespace: Name = "rft"
    """Prefix of all topics, ``<namespace>.<entity>.v1``, so that runs and teams can share a cluster."""
    partitions: int = Field(default=4, ge=1, le=1000)
    """Partitions of keyed topics; the most explorers and processors that can work at once."""
    replication_factor: int = Field(default=1, ge=1, le=9)
    """Copies of each partition; 3 in a production cluster."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    """Largest event that is written or accepted. Larger ones are decode errors."""
    experience_retention_hours: float = Field(default=24 * 14, gt=0)
    """Retention of experiences and rewards: longer than the longest reward delay."""
    audit_retention_hours: float = Field(default=24 * 365, gt=0)
    """Retention of steps and dead letters."""
    skip_deleted: bool = False
    """Go on, with a warning, where retention has deleted what an explorer, a processor or a trainer was to read next.
    By default it stops and names the range. What a step's repetition needs is never skipped."""
    session_timeout_ms: int = Field(default=6000, ge=6000, le=300_000)
    """Consumer group session: how soon a dead member's partitions move."""


class RegistryConfig(Section):
    url: str | None = None
    """Base URL of a schema registry that speaks Confluent's API (Confluent, Karapace, Apicurio's ``/apis/ccompat/v7``,
    Redpanda). Events are then framed as Confluent's; without one they name their schema by fingerprint. Set for good:
    readers of events that were framed so need the registry."""
    username: str | None = None
    """For basic authentication; at Confluent Cloud the API key."""
    password: SecretStr | None = None
    """Better given as RFT_REGISTRY__PASSWORD than in a file."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the registry's certificate; the system's CAs if not set."""
    auto_register: bool = True
    """Register our schemas as ``<topic>-value``, with compatibility FULL_TRANSITIVE. If not, they must be there
    (`rft schemas register`)."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """For one request."""
    patience_s: float = Field(default=20.0, ge=0)
    """How long a role waits for a registry that does not answer before it ends and is restarted. Processors wait as
    long as it takes: no good event becomes a dead letter."""

    @model_validator(mode="after")
    def _complete(self) -> RegistryConfig:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.url is not None and "@" in self.url.partition("//")[2].partition("/")[0]:
            raise ValueError("url must not hold a user; set username and password")
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        return self


class ArchiveConfig(Section):
    enabled: bool | None = None
    """Copy the topics to ``url`` while the run goes on. By default only with the embedded broker, whose log ends with
    its run."""
    url: str | None = None
    """Folder or fsspec URL (``s3://bucket/path``); by default ``archive`` in the run's folder."""
    entities: tuple[EntityName, ...] = get_args(EntityName)
    """The topics to copy."""
    roll_mb: float = Field(default=64.0, gt=0)
    """A file is finished when it has this many MiB."""
    roll_s: float = Field(default=60.0, gt=0)
    """A file is finished when it is this old. What has come since is not in the archive if broker and archiver die
    together."""
    codec: Literal["null", "deflate"] = "null"
    """Compression of the files. ``deflate`` makes short events 3.5 times smaller for 4 µs each, but 1,024-token ones
    only by a quarter, for 180 µs each."""
    skip_missing: bool = False
    """Go on after events that the log deleted before they were copied; the archive then has a gap, which its readers
    report. By default the archiver stops and says which range is gone."""
