"""``rft doctor``: checks whether everything is there that a run needs, and says what to do."""
