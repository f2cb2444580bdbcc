"""The routes of the API, one module for each service or kind of thing. Begin with sessions.py."""
