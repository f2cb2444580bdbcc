"""The room of processes: supervision of children, memory, swap.

It imports nothing of ours. Begin with `children`.
"""
