"""Images to where they are needed: by which route each image comes to each host, and what that came to."""
