"""The verbs of `lucid`: each file holds a function, or a Typer group, of the verb's name.

May import every room. A verb parses its options, asks the system and prints; it holds no rule of its own.
keys and doctor have their parts in key_*.py and doctor_*.py. streams/cli/catalog.py lists the verbs.
"""
