"""Sub-commands of ``rft``, one file each: arguments in, text out; the work is done in the rooms below."""
