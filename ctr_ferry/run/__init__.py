"""One invocation: how commands are declared, read and run on all hosts."""
