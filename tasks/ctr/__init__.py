"""One host's ctr: command lines, parsed answers, capabilities by version. Pure: no I/O."""
