"""Runs the stage `record`: fragments of a host become `recorded` events.

This room may import the same rooms as streams/pipeline.
Read ingest.py first (the reader of all sessions), then recording.py (one session).
"""
