"""Keeps judgements by what was judged, in one SQLite file that processes of a machine may share."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rft.config import RewarderConfig
from rft.errors import ConfigError
from rft.rewards.functions import Sample
from rft.rewards.judgement import Judgement

FILE = "judgements.sqlite"
BUSY_S = 10.0
"""How long a write waits for another process's."""


class JudgementCache:
    """Judgements by a digest of the function, its options and the samples. Not for several threads."""

    def __init__(self, folder: Path, config: RewarderConfig) -> None:
        """Open or create the file. Raises ConfigError if that is not possible."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(folder / FILE, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS judgements (digest BLOB PRIMARY KEY, value TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the cache of rewards cannot be kept in {folder}: {error}. Choose another cache_folder, or set "
                "cache = false"
            ) from error
        self._asked = {"function": config.function, "options": config.options, "scope": config.scope}

    def digest(self, samples: Sequence[Sample]) -> bytes:
        """Return what names this question: function, options, and all that a function may see of the samples."""
        question = {**self._asked, "samples": [asdict(sample) for sample in samples]}
        text = json.dumps(question, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).digest()

    def get(self, digest: bytes) -> list[Judgement] | None:
        """Return the judgements that are kept; None if there are none."""
        row = self._file.execute("SELECT value FROM judgements WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        return [Judgement(one["values"], one["details"]) for one in json.loads(row[0])]

    def put(self, digest: bytes, judgements: Sequence[Judgement]) -> None:
        """Keep judgements. Those of a later try do not replace them."""
        value: list[dict[str, Any]] = [{"values": dict(one.values), "details": dict(one.details)} for one in judgements]
        self._file.execute("INSERT OR IGNORE INTO judgements VALUES (?, ?)", (digest, json.dumps(value)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
