"""Talks to a schema registry with Confluent's API (Confluent, Karapace, Apicurio's ccompat, Redpanda).

It uses urllib: a few small requests in a process's life are no reason for a dependency.
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
"""Statuses besides the 5xx that mean: retry later."""
_MAX_ANSWER_BYTES = 8 * 1024 * 1024


class RegistryClient:
    """Makes one request a call and keeps no state. Thread-safe.

    All methods raise RegistryUnreachableError if there is no answer, or one that means "retry later", and RegistryError
    if the registry refuses the request.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Accept": f"{_MEDIA_TYPE}, application/json", "Content-Type": _MEDIA_TYPE}
        if username is not None:
            secret = base64.b64encode(f"{username}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"
        elif token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._login = "registry.token" if token is not None else "registry.username and registry.password"
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls), _NoRedirects())

    def schema(self, number: SchemaId) -> str | None:
        """Return the schema with that id, None if there is none. Only newer registries know GUIDs."""
        answer = self._ask("GET", f"/schemas/{'guids' if isinstance(number, str) else 'ids'}/{number}")
        return None if answer is None else str(answer["schema"])

    def find(self, subject: str, schema: str) -> int | None:
        """Return the id of ``schema`` if it is a version of ``subject``, otherwise None."""
        answer = self._ask("POST", f"/subjects/{_quoted(subject)}", {"schema": schema})
        return None if answer is None else int(answer["id"])

    def register(self, subject: str, schema: str) -> int:
        """Register ``schema`` as a version of ``subject`` if it is not one already, and return its id.

        Raises IncompatibleSchemaError with the registry's reasons if the registry refuses it.
        """
        answer = self._ask("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": schema})
        if answer is None:
            raise RegistryError(f"schema registry {self.url}: does not accept versions of subject {subject} (404)")
        return int(answer["id"])

    def compatibility(self, subject: str) -> str | None:
        """Return the compatibility level that is set for ``subject`` itself, None if there is none."""
        answer = self._ask("GET", f"/config/{_quoted(subject)}")
        return None if answer is None else str(answer["compatibilityLevel"])

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        """Set the compatibility level for further versions of ``subject``."""
        self._ask("PUT", f"/config/{_quoted(subject)}", {"compatibility": level})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the answer's JSON, None for a 404."""
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
            # An SSLError has a reason, too, which is a text.
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            refusal = _tls_refusal(cause)
            if refusal is not None:
                raise RegistryError(f"schema registry {self.url}: {refusal}") from error
            raise RegistryUnreachableError(f"schema registry {self.url}: {_plain(cause)}") from error
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RegistryError(
                f"schema registry {self.url}: the answer to {path} is not a JSON object. Set registry.url to the "
                "API's base URL"
            )
        return found

    def _refusal(self, status: int, path: str, reason: str) -> RegistryError:
        where = f"schema registry {self.url}"
        if status in (401, 403):
            return RegistryError(f"{where}: refuses access ({status}): check {self._login}")
        if status == 409:
            subject = urllib.parse.unquote(path.split("/")[2])
            return IncompatibleSchemaError(
                f"{where}: our schema cannot become a version of subject {subject}: {reason}. Give new fields defaults "
                "and keep the types of others (`rft schemas check`), or use another log.namespace"
            )
        if status >= 500 or status in _BUSY:
            return RegistryUnreachableError(f"{where}: answers {status} to {path}: {reason}")
        return RegistryError(f"{where}: answers {status} to {path}: {reason}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return None, which makes a redirect an error: the next host would get the password."""
        return


def _quoted(subject: str) -> str:
    return urllib.parse.quote(subject, safe="")


def _reason(text: bytes) -> str:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text[:300].decode("utf-8", "replace")
    return " ".join(str(message).split()) or "no reason given"


def _tls_refusal(cause: Any) -> str | None:
    """Return what to do about a TLS failure that no other try can pass; None for other failures."""
    reason = (isinstance(cause, ssl.SSLError) and cause.reason) or ""
    if reason == "CERTIFICATE_VERIFY_FAILED":
        detail = getattr(cause, "verify_message", "") or cause
        return (
            f"its certificate is not signed by a CA we know, or is not for this host ({detail}). Set "
            "registry.ssl_cafile to the PEM file of the CA that signed it"
        )
    if "ALERT" in reason:
        return (
            f"it refuses the TLS connection ({reason.replace('_', ' ').lower()}). It may want a client certificate "
            "that it trusts: check registry.ssl_certfile and registry.ssl_keyfile"
        )
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "it speaks no TLS: registry.url must begin with http://"
    return None


def _plain(cause: Any) -> str:
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ssl.SSLEOFError):
        return "it closed the TLS connection. It may want another client certificate (registry.ssl_certfile)"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
