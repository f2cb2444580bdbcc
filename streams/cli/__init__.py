"""The command line `lucid`: one verb a file in verbs/, and the parts that all verbs share.

May import every room. Begin with main.py (one command line in, one exit status out), then output.py (how a
verb speaks) and one verb. catalog.py lists the verbs: a new verb needs a line there and a file in verbs/.
attach.py connects to the running system, wait_start.py waits for it, board.py and verdict.py print.
"""
