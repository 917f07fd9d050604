"""``rft run``: a broker and all roles on one machine, supervised, with one live view."""
