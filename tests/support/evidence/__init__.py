"""Sealed sessions, samples of every event and format, and attacks, in memory.

Read first: recorded_session.py.
"""
