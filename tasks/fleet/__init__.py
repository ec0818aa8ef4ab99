"""Many hosts: inventory, executor, outcomes, and what is shown of them."""
