"""One host's images: what is there, and how it is named and rolled back."""
