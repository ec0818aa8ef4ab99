"""Makes the archive that installs ctr-ferry on a machine without a network (`make bundle`)."""
