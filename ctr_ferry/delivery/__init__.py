"""Images to where they are needed: which way each image takes to each host, and what that came to."""
