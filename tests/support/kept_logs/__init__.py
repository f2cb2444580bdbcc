"""Keeps everything that systems log in a run of all tests, and searches it for planted values at the end.

May import schemas and the standard library only. Read log_search.py first.
"""
