"""SSH: connections, host keys, the guard, byte channels. No other room imports paramiko."""
