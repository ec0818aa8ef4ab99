"""A stand-in for ctr v1.2.6: its command line in front of the newer ctr that $LAB_REAL_CTR names.

No Debian suite has a ctr older than 1.4, so the lab's node1 runs this file as /usr/bin/ctr, by
`exec python3 -I -S …/lab/standin/ctr.py "$@"`. The stand-in follows records of the real ctr 1.2.6, which
tests/lab/test_standin.py replays. It refuses with exit status 70 what it does not cover. Python compiles this file at
each start, so the file only calls another one.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("/", 3)[0])  # -I keeps the script's own folder off the path
    from lab.standin.cli import main

    main(sys.argv[1:])
