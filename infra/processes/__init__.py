"""The room of processes: supervision of children, memory and core dumps, swap.

It may import schemas. Begin with children.py.
"""
