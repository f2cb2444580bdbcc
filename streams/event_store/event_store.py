"""Bundles the event store over one connection: recordings, the log of sessions, the directory, the hosts.

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

    recordings: Recordings
    log: SessionLog
    directory: SessionDirectory
    hosts: HostLog

    @classmethod
    def over(cls, recordings: Recordings, directory: SessionDirectory) -> "EventStore":
        return cls(recordings, SessionLog(recordings.jet), directory, HostLog(recordings.jet))

    @property
    def jet(self) -> Jet:
        return self.recordings.jet
