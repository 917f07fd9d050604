"""Reward functions with which nothing can be learned."""


def raises_unless_right(response: str, answer: str | None = None) -> float:
    """Return 1 for the right answer, and raise for any other."""
    if response != answer:
        raise LookupError("the judge is not configured")
    return 1.0


def constant(response: str, answer: str | None = None) -> float:
    """Return the same for all answers."""
    return 0.5
