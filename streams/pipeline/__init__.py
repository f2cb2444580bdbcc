"""Runs the six stages that turn fragments into sealed, stored chunks.

This room may import control, projections, keys, event_store and scheduling of streams/, handlers and schemas.
Begin with stages.py: the table of the stages. record/ is the first stage, runner.py the loop of the others.
"""
