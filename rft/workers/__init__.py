"""Processes that run the code of others: it may hang, die or take memory without harm to the role that needs it.

``child`` and ``lines`` are the side of such a process, ``spawn`` and ``guard`` that of its parent. ``blocking`` is a
parent's side for callers that may block; :mod:`rft.environments.worker_process` is one for event loops.
"""
