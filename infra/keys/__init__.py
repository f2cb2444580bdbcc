"""The room of key files: master key, signers, key files of sessions, host identity, and the mirror of all.

    master, signers, json_files         small files that are made once
    session_keys                        one file per session, whose bytes can be erased for good
    overwriting, medium                 the proof of an erasure: the blocks of the file, the disk below it
    folder, place                       the folder as a whole, in use and while it is moved
    mirrored_*                          the same ports over two folders
    host_identity                       the key and counter of one RDP host

It may import infra.blobs, infra.disk and schemas. Begin with session_keys.py, then docs/keys.md.
"""
