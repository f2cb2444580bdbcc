"""All tests; the folder says how much of the system a test starts.

unit: nothing. contract: a real server. pipeline and faults: whole systems. cli and acceptance: the program.
arch: rules over the sources. soak: `just soak` and `just fuzz`. Helpers are in support/.
"""
