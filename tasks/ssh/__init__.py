"""The only room that touches the wire: connections, host keys, remote commands under their guard."""
