"""The drivers of telemetry: the measurements of a process, its log and its traces.

May import schemas and infra only, and alone imports the SDK of OpenTelemetry. Begin with metrics.py, or with
tracing.py and then span_export.py.
"""
