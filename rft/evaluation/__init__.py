"""Recognizes the groups of evaluations and computes estimates from their answers. Pure."""
