"""The room of our own nats-server: configuration, port, store lock, supervision.

It may import infra.disk, infra.processes and schemas. Begin with server.py.
"""
