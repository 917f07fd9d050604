"""Sub-commands of ``rft``, one file each. They read arguments and print text; other packages do the work."""
