"""Bundles the services of single chunks over one installation: pool, processor, store and trees."""

from dataclasses import dataclass

from schemas.config.settings import Settings
from schemas.ports import Jet
from streams.event_store.proven_chunks import ProvenSessions
from streams.event_store.session_log import SessionLog
from streams.evidence.chunk_processor import ChunkProcessor
from streams.evidence.chunk_store import ChunkStore
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.session_trees import SessionTrees
from streams.keys.keystore import KeyStore
from streams.pipeline.chunk_pool import ChunkPool, PoolLimits


@dataclass(frozen=True, slots=True)
class ChunkServices:
    """One for each process; used from one event loop."""

    pool: ChunkPool
    processor: ChunkProcessor
    store: ChunkStore
    trees: SessionTrees

    @classmethod
    def over(cls, jet: Jet, evidence: EvidenceStore, keys: KeyStore, settings: Settings) -> "ChunkServices":
        log, proven = SessionLog(jet), ProvenSessions(jet)
        trees = SessionTrees(log, proven, evidence)
        store = ChunkStore(log, proven, trees, evidence, keys)
        pool = ChunkPool(
            PoolLimits(
                settings.processor_workers,
                settings.processor_queue,
                settings.processor_memory_bytes,
                settings.processor_timeout_s,
            )
        )
        return cls(pool, ChunkProcessor(pool, store, log, keys, settings), store, trees)
