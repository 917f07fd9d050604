"""One small file for each library of environments. Each has a function ``make(name, options)``; see
:data:`rft.environments.opening.ADAPTERS`. They are imported in the processes of environments only."""
