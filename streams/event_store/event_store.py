"""Bundles the event store over one connection: the log of sessions, the directory, the hosts.

The chunk log needs no object: its functions (chunk_log.py) take the connection.
"""

from dataclasses import dataclass

from schemas.ports import Jet
from streams.event_store.host_log import HostLog
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog


@dataclass(frozen=True, slots=True)
class EventStore:
    """One for each process. A task must run `directory.run`."""

    jet: Jet
    log: SessionLog
    directory: SessionDirectory
    hosts: HostLog
    recordings: Recordings

    @classmethod
    def over(cls, recordings: Recordings, directory: SessionDirectory) -> "EventStore":
        jet = recordings.jet
        return cls(jet, SessionLog(jet), directory, HostLog(jet), recordings)
