"""The rehearsal fleet: real sshd and real containerd per node, on loopback."""
