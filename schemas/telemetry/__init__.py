"""The context and the facts of traces: pure text, known to every process.

May import schemas. Begin with trace_context.py. The port is schemas/ports/telemetry.py.
"""
