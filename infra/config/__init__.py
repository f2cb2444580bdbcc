"""Reads the settings of this process: environment, settings file, defaults.

May import schemas and infra.disk. Begin with load.py; it declares nothing (schemas/config/settings.py does).
"""
