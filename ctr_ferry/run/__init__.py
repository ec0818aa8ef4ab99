"""One invocation: how commands are declared, parsed and run on all hosts."""
