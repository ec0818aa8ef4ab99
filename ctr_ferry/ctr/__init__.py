"""One host's ctr, purely: command lines, parsed answers, capabilities by version, errors by its words."""
