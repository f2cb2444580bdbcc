"""Bodies of events and commands: sessions, chunks, hosts, the installation, and message headers.

Imports schemas only. Begin with session.py; chunk.py has the events of the pipeline. An old type is read by
upcast.py. Member names are persisted: add new ones, never rename.
"""
