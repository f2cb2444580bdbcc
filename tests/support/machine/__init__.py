"""Waiting, small file systems, and tests that must be skipped. Read first: waiting.py."""
