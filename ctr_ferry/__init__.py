"""The library under the commands: one room per idea; imports point downwards only (see ARCHITECTURE.md)."""
