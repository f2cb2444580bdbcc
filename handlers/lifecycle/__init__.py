"""A session's life: its state from its log, the rules of commands, the next action, the JSON view.

Imports schemas and handlers.crypto. Begin with rules.py, the tables. decide.py applies them; session.py
folds the log.
"""
