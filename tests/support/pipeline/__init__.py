"""Prepared recordings, whole systems, faults and kills. Read first: prepared.py, then conducted.py."""
