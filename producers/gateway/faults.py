"""Says what went wrong with a request, and how each protocol writes it. Pure.

What a client reads is a message of ours. It never holds a stack trace or the text of an unexpected exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from producers.gateway.contract import OverloadedError, SessionEndedError, UnknownSessionError
from rft.errors import PolicyError, PromptTooLongError, RequestError, TokenBudgetError, first_line

MAX_MESSAGE_CHARS = 1000
OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
"""Types of OpenAI's errors by status; any other is an ``invalid_request_error``."""
ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
}
"""Likewise of Anthropic's errors."""


class RefusedError(RequestError):
    """A field of a request is wrong or not supported."""

    def __init__(self, param: str, problem: str, *, code: str | None = None) -> None:
        """``param`` is the path of the field, such as ``messages[2].content``; empty for the whole body."""
        super().__init__(f"{param}: {problem}" if param else problem)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Fault:
    """What is answered instead of a turn."""

    status: int
    message: str
    code: str | None = None
    """OpenAI's code, if there is one."""
    param: str | None = None
    """The path of the field at fault."""
    retry_after_s: float | None = None


def fault_of(error: BaseException) -> Fault | None:
    """Return the fault that an error means, None if it is one that nobody expected."""
    message = first_line(error)[:MAX_MESSAGE_CHARS]
    match error:
        case RefusedError():
            return Fault(400, message, error.code, error.param or None)
        case TokenBudgetError() | PromptTooLongError():
            # Clients of both protocols look for these words and then shorten the history.
            return Fault(400, f"prompt is too long: {message}", "context_length_exceeded", "messages")
        case RequestError():
            return Fault(400, message)
        case UnknownSessionError():
            return Fault(404, message, "session_not_found")
        case SessionEndedError():
            # 410 and not 409: clients try a 409 again.
            return Fault(410, message, "session_ended")
        case OverloadedError():
            return Fault(429, message, "rate_limit_exceeded", retry_after_s=error.retry_after_s)
        case PolicyError():
            return Fault(503, f"the policy cannot generate: {message}", "policy_error")
    return None


UNEXPECTED = Fault(500, "the gateway failed; its log holds the cause", "internal_error")


def openai_error(fault: Fault) -> dict[str, Any]:
    """Return a fault in the shape of OpenAI's errors."""
    kind = OPENAI_TYPES.get(fault.status, "invalid_request_error")
    return {"error": {"message": fault.message, "type": kind, "param": fault.param, "code": fault.code}}


def anthropic_error(fault: Fault) -> dict[str, Any]:
    """Return a fault in the shape of Anthropic's errors."""
    kind = ANTHROPIC_TYPES.get(fault.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": fault.message}}
