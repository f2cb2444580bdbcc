"""One module per stage of the pipeline: each turns an input into an event and bytes. Pure.

Imports schemas, handlers.crypto and handlers.format. Begin with context.py; record/ holds the first stage.
streams/pipeline runs them.
"""
