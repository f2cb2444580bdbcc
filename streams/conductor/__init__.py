"""The conductor: it brings every session from creation to its seal or destruction.

May import retention and the rooms below it. Begin with conductor.py; host_watch.py tells it which hosts are
silent. The rules are pure, in handlers/lifecycle/next_action.py.
"""
