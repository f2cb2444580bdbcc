"""The drivers of telemetry: the measurements of a process, and its log.

May import schemas and infra only. Begin with metrics.py.
"""
