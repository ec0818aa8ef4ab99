"""One host's images: which are there, how they get names, and how names are rolled back."""
