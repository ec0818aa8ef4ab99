"""The commands of ctr-ferry, one file each."""

import sys

from ctr_ferry.secrets import keep_out_of_log

# Invoke turns bytecode off, so that each `fab` would compile all commands anew. Here the flag of Python counts again.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

# Only after this import does Invoke read passwords, from the environment and from prompts. It logs all that it reads.
keep_out_of_log("invoke")
