"""The commands of ctr-ferry, one file each, and the four rooms that they share."""

import sys

# Invoke turns it on for every `fab`, which then compiled all commands anew each time.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
