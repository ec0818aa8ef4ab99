"""Blobs from sources to hosts."""
