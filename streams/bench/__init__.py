"""How fast this machine is, in figures that can be compared: the pipeline and its rivals, in one run.

    data       the bytes that all contenders get, in one file
    floor      the pure functions in two threads, durable put and read back; no broker
    bare       the same behind the least that a broker costs: one publisher, one reader, no stage events
    pipeline   the real system, supervised, with a publisher process; until stored, until sealed
    peers      restic and kopia, where they are installed
    sessions   many sessions at their own pace, and idle ones

1. Every contender works in processes of its own (actors), on the same disk, one after the other, and what it
   stored is opened again and compared with the source; that is not timed.
2. Ratios are taken within one round: machines, disks and neighbours change between rounds.
"""
