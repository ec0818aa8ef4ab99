"""The Ansible inventory, and which hosts -H means."""
