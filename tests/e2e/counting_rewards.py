"""A reward that a random model meets now and then, and can be taught in a few steps."""


def share_of_a(response: str, answer: str | None = None) -> float:
    """The share of ``a`` among the characters written."""
    return response.count("a") / max(len(response), 1)
