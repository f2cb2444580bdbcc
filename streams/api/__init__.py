"""The REST API: one FastAPI application with five roles, whose routes call commands and queries.

May import control, event_store, evidence, host, keys, pipeline, projections and scheduling; only this room
imports fastapi. Begin with app.py, then routes/sessions.py.
"""
