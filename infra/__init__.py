"""The drivers: everything that touches the disk, processes, the network, a database.

Each implements a port of schemas/ports. It may import schemas; only streams/roles/drivers.py may import it.
Begin with streams/roles/drivers.py, which names the driver behind each port.
"""
