"""Decides when work runs: retries, fair turns of hosts, one task a session, threads, the clock.

This room may import handlers and schemas, and no other room of streams/.
Begin with retry.py (the delays of the services), then fair_slots.py.
"""
