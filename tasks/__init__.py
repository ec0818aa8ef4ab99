"""The commands of ctr-ferry, one file each, and the four rooms that they share."""

import sys

from ctr_ferry.secrets import keep_out_of_log

# Invoke turns it on for every `fab`, which then compiled all commands anew each time.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

# Here, since Invoke reads passwords of the environment and of prompts after this, and logs all that it reads.
keep_out_of_log("invoke")
