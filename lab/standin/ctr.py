"""A stand-in for ctr v1.2.6: its command line in front of the newer ctr that $LAB_REAL_CTR names.

No package registry carries a ctr older than 1.4, so the lab's node1 runs this as /usr/bin/ctr, by
`exec python3 -I -S …/lab/standin/ctr.py "$@"`. What ctr 1.2.6 does is taken from records of the real
one (tests/data/ctr-1.2.6.jsonl); tests/lab/test_standin.py replays them. What this does not cover it
refuses with exit status 70. This file is compiled at each start, so it only hands over.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("/", 3)[0])  # -I keeps the script's own folder off the path
    from lab.standin.cli import main

    main(sys.argv[1:])
