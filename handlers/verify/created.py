r"""Checks the first line of the history: the host's own signed request for this session (format.md §11).

1. Line 1 is Created. Its members session, host, host_key, counter, prev_genesis and settings are what the
   host asked for, and `request` is the host's signature over them: no signer can write another.
2. Every seal's manifest names the same session, host, key, counter and settings. So evidence of one session
   cannot be sealed again as another's.
3. Other members of the line are the installation's, and rest on the signer's word.
"""

from collections.abc import Iterator, Mapping, Sequence

from handlers.crypto.signatures import verify_signature
from handlers.verify.report import Finding
from handlers.verify.seals import Mark
from schemas.errors import Rejected
from schemas.events.commands import CREATE_PREFIX
from schemas.format.jcs import jcs

ASKED = ("counter", "host", "host_key", "prev_genesis", "session", "settings")
"""What the host signs, by name."""
PLACE = "history line 1"


def check_created(event: Mapping[str, object], marks: Sequence[Mark]) -> Iterator[Finding]:
    """`event` is line 1 of the history; marks: what each seal says of it."""
    asked = {name: event[name] for name in ASKED if name in event}
    if event.get("type") != "Created" or len(asked) != len(ASKED):
        yield Finding("history.created", PLACE, "is not the creation of a session")
        return
    if not _is_signed(asked, event.get("request")):
        yield Finding("history.request", PLACE, "the request in it is not signed by the host's key")
    for mark in marks:
        wrong = [name for name, value in mark.created.items() if not same(event.get(name), value)]
        settings = event["settings"]
        wrong += [
            f"settings.{name}"
            for name, value in mark.settings.items()
            if not isinstance(settings, dict) or not same(settings.get(name), value)
        ]
        if wrong:
            told = f"seal {mark.started['seal_no']} is of another session than the host asked for"
            yield Finding("history.session", PLACE, f"{told}: {', '.join(wrong)}")


def same(said: object, wanted: str | int) -> bool:
    """Equal and of one type: in JSON true is not 1."""
    return type(said) is type(wanted) and said == wanted


def _is_signed(asked: Mapping[str, object], request: object) -> bool:
    key = asked["host_key"]
    if not isinstance(key, str) or not isinstance(request, str):
        return False
    try:
        public, signature = bytes.fromhex(key), bytes.fromhex(request)
        one_form = public.hex() == key and signature.hex() == request
        return one_form and verify_signature(public, jcs(dict(asked)), signature, CREATE_PREFIX)
    except (ValueError, Rejected):
        return False
