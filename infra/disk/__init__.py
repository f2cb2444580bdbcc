"""The room of plain files: the data directory, durable writes, locks, evidence copies.

It may import schemas. Begin with data_dir.py (where everything lies) and `durable` (how a write survives a
crash).
"""
