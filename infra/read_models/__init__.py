"""The room of read models: the driver of the port Views (schemas/ports/read_models.py).

It may import schemas. Begin with sqlite.py.
"""
