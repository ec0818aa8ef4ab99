"""A registry as a host sees it."""
