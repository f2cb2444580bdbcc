"""The drivers of telemetry: the measurements of a process.

May import schemas and infra only. Begin with metrics.py.
"""
