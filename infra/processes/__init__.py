"""The room of processes: supervision of children, memory, swap.

It may import schemas. Begin with `children`.
"""
