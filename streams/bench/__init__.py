"""`lucid bench`: the speed of this machine, the pipeline and its rivals compared in one run.

May import every room but cli. Begin with contender.py, then rounds.py. The contenders are baselines.py (floor
and bare loop), pipeline.py (the real system) and peers.py (restic, kopia). sessions.py, hostile.py and
scale.py measure many sessions, a hostile host and a long history; actors.py runs their processes.
"""
