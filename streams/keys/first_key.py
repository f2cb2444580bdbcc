"""Finds the data key of a session, or makes its first one.

1. A key that the log names is never made again: a folder without it is older, and the right file may return.
2. A new key is durable, and the log knows of its file, before anything names it. A crash in between leaves
   the key for the next try.
"""

from handlers.crypto.keys import SessionKeys
from handlers.lifecycle.session import Session
from schemas.ports import Writer
from streams.keys.folder import RequireKeys, note_key
from streams.keys.held_keys import shredded
from streams.keys.keystore import KeyStore


async def first_key(keys: KeyStore, require_keys: RequireKeys, jet: Writer, session: Session) -> SessionKeys:
    """Return the session's keys. Safe to repeat.

    Raises RefusedByState (keys.shredded), Unavailable (keys.pending, keys.*), Denied (keys.*).
    """
    if session.key_id:
        async with keys.using(session.uid, session.key_id) as held:
            if held is None:
                raise shredded(session.uid)
            return held.keys
    await require_keys()
    made = await keys.make(session.uid)
    await note_key(jet, session.id, session.uid)
    return made
