"""The command service: it answers `lucid.cmd.<name>`, one request and one answer each.

May import scheduling, event_store, keys and projections. Begin with commands.py (they change sessions), then
questions.py and queries.py (they change nothing), key_commands.py (they change keys). How many sessions there
may be: session_quota.py, running_places.py. nats_service.py subscribes all, client.py is the caller's side.
"""
