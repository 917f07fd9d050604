"""``rft run``: runs a broker and all roles on one machine, supervises them, and shows one live view."""
