"""The room of the RDP host: the sessions that run here, and the notices of their begin and end.

It implements the port RdpHost (schemas/ports/rdp.py) for xrdp. It may import schemas and infra/capture.
Begin with xrdp.py; unix_sockets.py reads the tables of the kernel.
"""
