"""Helpers of the tests, imported by their full names: `from tests.support.pipeline.prepared import Prepared`.

- evidence: sealed sessions, samples and attacks in memory; no server.
- pipeline: prepared recordings, whole systems inside one test or in processes, faults and kills.
- servers: certificates, clusters, ports and bare clients for real nats-servers.
- program: `lucid` as a person runs it, and hosts that speak to it.
- machine: waiting, small file systems, and tests that must be skipped.
`tests/independent` stays apart: it shares no code with the program or with these helpers.
"""
