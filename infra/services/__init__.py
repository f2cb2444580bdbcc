"""Asks other services over HTTP.

May import schemas only. Begin with health.py.
"""
