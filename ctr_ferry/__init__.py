"""The library under the commands: one room per idea; imports point downwards only (see ARCHITECTURE.md)."""

__version__ = "0.2.0"
