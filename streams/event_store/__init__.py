"""Reads and appends the events of sessions, hosts and chunks in the streams of the broker.

This room may import streams/scheduling, handlers and schemas.
Begin with session_log.py: how an event is appended. topology.py declares the streams.
"""
