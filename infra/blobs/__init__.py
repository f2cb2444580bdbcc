"""The room of whole files by name: the drivers of the port Blobs (schemas/ports/files.py).

It may import infra.disk and schemas. Begin with disk.py.
"""
