"""Runs the stage `record`: fragments of a host become `recorded` events.

This room may import the same rooms as streams/pipeline.
Begin with ingest.py (the reader of all sessions), then recording.py (one session).
"""
