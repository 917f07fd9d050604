"""Talks to a schema registry in Confluent's language (Confluent, Karapace, Apicurio's ccompat, Redpanda).

urllib does it: four kinds of small requests, made a few times in a process's life, are no reason for a dependency.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from schemas.errors import IncompatibleSchemaError, RegistryError, RegistryUnreachableError
from schemas.framing import SchemaId

COMPATIBILITY = "FULL_TRANSITIVE"
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_BUSY = (408, 425, 429)
"""Besides the 5xx, answers that say: not now."""
_MAX_ANSWER_BYTES = 8 * 1024 * 1024


class RegistryClient:
    """One request a call, without memory. Thread-safe.

    All methods raise RegistryUnreachableError when there is no answer or one that says "not now", and RegistryError
    when the registry refuses us.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Accept": f"{_MEDIA_TYPE}, application/json", "Content-Type": _MEDIA_TYPE}
        if username is not None:
            secret = base64.b64encode(f"{username}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls), _NoRedirects())

    def schema(self, number: SchemaId) -> str | None:
        """The schema with that id (GUIDs are known to newer registries only); None when there is none."""
        answer = self._ask("GET", f"/schemas/{'guids' if isinstance(number, str) else 'ids'}/{number}")
        return None if answer is None else str(answer["schema"])

    def find(self, subject: str, schema: str) -> int | None:
        """The id of ``schema`` if it is a version of ``subject``."""
        answer = self._ask("POST", f"/subjects/{_quoted(subject)}", {"schema": schema})
        return None if answer is None else int(answer["id"])

    def register(self, subject: str, schema: str) -> int:
        """The id of ``schema``, which becomes a version of ``subject`` if it is none yet.

        Raises IncompatibleSchemaError with the registry's reasons when it may not.
        """
        answer = self._ask("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": schema})
        if answer is None:
            raise RegistryError(f"schema registry {self.url}: takes no versions of subject {subject} (404)")
        return int(answer["id"])

    def compatibility(self, subject: str) -> str | None:
        """The level set for ``subject`` itself; None when there is none."""
        answer = self._ask("GET", f"/config/{_quoted(subject)}")
        return None if answer is None else str(answer["compatibilityLevel"])

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        """What further versions of ``subject`` must keep to."""
        self._ask("PUT", f"/config/{_quoted(subject)}", {"compatibility": level})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The answer's JSON; None for a 404."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                text = answer.read(_MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise self._refusal(error.code, path, _reason(error.read(_MAX_ANSWER_BYTES))) from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            raise RegistryUnreachableError(f"schema registry {self.url}: {_plain(cause)}") from error
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RegistryError(
                f"schema registry {self.url}: answers {path} with no JSON object; is registry.url the API's base?"
            )
        return found

    def _refusal(self, status: int, path: str, reason: str) -> RegistryError:
        where = f"schema registry {self.url}"
        if status in (401, 403):
            return RegistryError(f"{where}: refuses us ({status}): check registry.username and registry.password")
        if status == 409:
            subject = urllib.parse.unquote(path.split("/")[2])
            return IncompatibleSchemaError(
                f"{where}: our schema may not be a version of subject {subject}: {reason}. Give new fields defaults "
                "and keep the types of others (`rft schemas check`), or use another log.namespace"
            )
        if status >= 500 or status in _BUSY:
            return RegistryUnreachableError(f"{where}: answers {status} to {path}: {reason}")
        return RegistryError(f"{where}: answers {status} to {path}: {reason}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None makes it an error: a redirected request would carry the password elsewhere."""
        return


def _quoted(subject: str) -> str:
    return urllib.parse.quote(subject, safe="")


def _reason(text: bytes) -> str:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text[:300].decode("utf-8", "replace")
    return " ".join(str(message).split()) or "no reason given"


def _plain(cause: Any) -> str:
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
