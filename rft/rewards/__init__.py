"""Reward functions: shipped ones by name, the user's own as ``package.module:function``."""
