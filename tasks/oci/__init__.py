"""Pure values of the OCI world: references, descriptors, manifests, layouts. No I/O."""
