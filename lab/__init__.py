"""The rehearsal fleet: nodes with a real sshd and a real containerd each, on loopback."""
