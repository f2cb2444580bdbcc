"""Decides which caller may do a thing: pure tables of roles, permissions and commands.

May import schemas and lifecycle. Begin with permissions.py (roles and permissions), then commands.py (one
row a command).
"""
