"""The commands of ctr-ferry, one file each, and the four rooms that they share."""
