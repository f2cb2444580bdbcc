"""The processes of the platform: drivers are chosen here, services composed, and a whole system is run.

May import every room but bench and cli; drivers.py alone imports infra. Begin with services.py (worker and
conductor), then local_system.py (all of it on one machine) and drivers.py.
"""
