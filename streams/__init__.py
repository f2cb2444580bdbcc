"""Everything that moves: services, connections, time, and the program `lucid`.

May import handlers and schemas; only roles/drivers.py imports infra. Begin with pipeline/stages.py, the table
of the stages, and roles/services.py, the services that run together. The rooms, high to low, none importing
upwards: cli, bench, roles, conductor, retention, evidence, host, pipeline, control, projections, keys,
event_store, scheduling.
"""
