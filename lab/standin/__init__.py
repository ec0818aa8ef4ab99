"""A stand-in for ctr 1.2.6 (see ctr.py); help/ holds that version's own help texts."""
