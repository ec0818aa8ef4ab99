"""Pure values: references, descriptors, manifests, archives, registries."""
