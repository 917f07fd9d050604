"""A reward that a random model gets sometimes, and learns in a few steps."""


def share_of_a(response: str, answer: str | None = None) -> float:
    """Return the share of ``a`` among the response's characters."""
    return response.count("a") / max(len(response), 1)
