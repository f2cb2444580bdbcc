"""The recording host: it starts a session, seals fragments, and sends them until the stream holds them.

May import scheduling, event_store and control (its client). Begin with record_session.py (a whole recording),
then session_start.py, publisher.py and source_feed.py.
"""
