"""Builds read models from the event log; each can be thrown away and built again.

This room may import streams/keys, streams/event_store, streams/scheduling, handlers and schemas.
Begin with projector.py.
"""
