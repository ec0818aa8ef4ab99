"""A stand-in for ctr 1.2.6 (see ctr.py). The folder help/ has the help texts of that version."""
