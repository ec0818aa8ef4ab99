"""The Ansible inventory, the variables of its hosts, and the host selector."""
