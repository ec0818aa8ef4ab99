"""Measurements against what people use today: `make bench-NAME`, always side by side in one run."""
