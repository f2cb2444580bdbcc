"""Data types and protocols that every other package shares: errors, events, formats, ports, settings.

Imports nothing of handlers, infra or streams. Begin with errors.py and subjects.py.

    events/   bodies of events and commands        format/   bytes and documents of evidence
    ports/    protocols that drivers implement     config/   settings
"""
