"""The only room that touches Fabric and paramiko: connections, host keys, the guard, byte channels."""
