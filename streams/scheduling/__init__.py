"""Decides which work runs when: fair turns, one task a session, threads, retries, the clock.

This room may import handlers and schemas, and no other room of streams/.
Read fair_slots.py first; the delays of all retries are in retry.py.
"""
