"""The names of evidence files, in the folders of the store and in an evidence copy (format.md §11)."""


def chunk_file(index: int) -> str:
    return f"{index:010}"


def stored_chunk(uid: bytes, index: int) -> str:
    return f"{uid.hex()}/{chunk_file(index)}"


def stored_manifest(uid: bytes, seal_no: int) -> str:
    return f"{uid.hex()}/{seal_no}"


def tombstone_name(uid: bytes) -> str:
    """Name of a tombstone in the manifest store."""
    return f"{uid.hex()}.tombstone.dsse.json"


def copied_chunk(index: int) -> str:
    return f"chunks/{chunk_file(index)}"


def copied_manifest(seal_no: int) -> str:
    return f"manifests/{seal_no}.dsse.json"
