"""Asks an OpenAI-compatible endpoint, and says of each failure whether another try may help."""

from __future__ import annotations

import email.utils
import os
import time
from typing import Any

import httpx

from rft.errors import ConfigError, RewardError, RewardServiceError
from rft.rewards.judgement import Usage
from rft.rewards.language_judge.prompts import Messages
from rft.rewards.language_judge.settings import JudgeOptions

CONNECT_S = 10.0
MAX_ANSWER_BYTES = 8 * 1024**2
MAX_RETRY_AFTER_S = 300.0
SHOWN_CHARS = 300


class ChatEndpoint:
    """Sends chat completions and counts their tokens."""

    def __init__(self, name: str, options: JudgeOptions) -> None:
        """``name`` is that of the rewarder, for errors."""
        self._name = name
        self._options = options
        # Only the request holds the key: errors and logs never do.
        key = os.environ.get(options.api_key_env, "")
        self._client = httpx.AsyncClient(
            base_url=options.base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(options.timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None),
        )
        self.usage = Usage()

    async def ask(self, messages: Messages) -> str:
        """Return the text of the answer.

        Raises:
            RewardServiceError: The endpoint does not answer, or says 408, 409, 425, 429 or 5xx.
            RewardError: It refuses this request, or its answer is not what it should be.
            ConfigError: It refuses us: a wrong key, address or model.
        """
        options = self._options
        body = {
            "model": options.model,
            "messages": messages,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            **options.request,
        }
        try:
            async with self._client.stream("POST", "chat/completions", json=body) as response:
                content = await _read(response, options.base_url)
        except httpx.TransportError as error:  # timeouts, and connections that are refused or broken off
            cause = str(error) or type(error).__name__
            raise RewardServiceError(f"the judge at {options.base_url} does not answer: {cause}") from error
        except httpx.HTTPError as error:
            raise RewardError(f"the judge at {options.base_url} cannot be asked: {error}") from error
        text = content.decode("utf-8", "replace")
        if response.is_error:
            raise self._refusal(response, text)
        return self._text(response, text)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _refusal(self, response: httpx.Response, text: str) -> Exception:
        options, status = self._options, response.status_code
        says = f"the judge at {options.base_url} answers {status}: {text[:SHOWN_CHARS]}"
        if status in (401, 403):
            state = "is not accepted" if os.environ.get(options.api_key_env) else "is not set"
            return ConfigError(
                f"rewarders.{self._name}: the judge at {options.base_url} requires an API key, and the one in the "
                f"environment variable {options.api_key_env} {state}"
            )
        if status in (404, 405):
            return ConfigError(
                f"rewarders.{self._name}: {says}. Check options.base_url (it ends before /chat/completions) and "
                "options.model"
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return RewardServiceError(says, retry_after_s=retry_after_s(response.headers.get("retry-after")))
        return RewardError(says)

    def _text(self, response: httpx.Response, text: str) -> str:
        server = self._options.base_url
        try:
            answer: Any = httpx.Response(200, text=text).json()
            content = answer["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise RewardError(
                f"the judge at {server} does not answer with a chat completion: {text[:SHOWN_CHARS]}"
            ) from error
        self._count(answer.get("usage"))
        if not isinstance(content, str):
            raise RewardError(f"the judge at {server} answers without text")
        return content

    def _count(self, usage: object) -> None:
        """Count tokens, also of answers that cannot be used: they cost as much."""
        if not isinstance(usage, dict):
            return
        numbers = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        prompt, completion = (one if isinstance(one, int) and 0 <= one < 2**31 else 0 for one in numbers)
        prices = self._options.price_per_million
        self.usage.prompt_tokens += prompt
        self.usage.completion_tokens += completion
        self.usage.cost += (prompt * prices[0] + completion * prices[1]) / 1e6


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date; at most five minutes."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None


async def _read(response: httpx.Response, server: str) -> bytes:
    """Return the body. Raises RewardError if it is larger than an answer can be."""
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise RewardError(f"the judge at {server} answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)
