"""`lucid bench`: the speed of this machine, the pipeline and other contenders compared in one run.

May import every room but cli. Begin with contender.py, then rounds.py. The contenders are baselines.py (disk,
floor and bare loop), pipeline.py (the real system), peers.py (restic, kopia, zstd with age) and
faststream_pipeline.py. sessions.py measures many sessions, max_sessions.py how many keep up, growth.py
whether cost grows. hostile.py and scale.py measure a hostile host and a long history; actors.py runs their
processes.
"""
