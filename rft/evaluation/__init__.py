"""Evaluations: which group belongs to which, and what their answers amount to. Pure."""
