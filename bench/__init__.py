"""Measurements against what people use today, side by side in one run: `make bench-NAME`."""
