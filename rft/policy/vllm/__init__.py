"""Text generation with vLLM.

``policy.py`` is the policy, and runs in the explorer. ``engine_start.py`` starts its engine in a child process, and
``update.py`` leads new weights into it. ``worker.py`` and ``weight_transfer.py`` run in the workers of the engine.
"""
