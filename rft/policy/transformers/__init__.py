"""Text generation with a transformers model.

``policy.py`` is the policy and its thread. ``running_batch.py`` writes one token of every running sequence at a time,
with ``kv_cache.py`` and ``sampling.py``.
"""
