"""Carries out the commands `audit` and `audit_head`, and signs the end of the audit chain every hour.

1. The end is signed only if the chain holds the last signed entry. Another chain in its place (a restored
   backup, or a forger's) is refused, unless the command says `accept_break`: a person looked into it.
2. Heads lie beside the chain, on a subject of their own. Several conductors may sign; each head is true.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from handlers.audit.chain import Walk
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import EvidenceFalse, LucidError, Rejected
from schemas.events.audit import Head, head_of, read_entry
from schemas.format import dsse
from schemas.format.audit_head import AuditHead
from schemas.format.digest import h
from schemas.ports import Jet, Signers
from streams.control.access_commands import AccessCommands
from streams.control.auditor import FILLED, Auditor
from streams.event_store.audit_pages import AuditQuery, lines_from, page
from streams.scheduling.clock import Clock

Body = dict[str, Any]
SIGN_S = 3600.0
STEP_LINES = 500
"""Entries that are checked in one go of a thread."""

log = logger("lucid.audit")


@dataclass(frozen=True, slots=True)
class AuditCommands:
    """One for each process that answers commands."""

    jet: Jet
    signers: Signers
    installation: Callable[[], bytes]
    """Content of `keys/installation`."""
    clock_us: Clock
    auditor: Auditor
    access: AccessCommands

    async def page(self, body: Body) -> Body:
        """A page of the audit chain, with filters (streams.event_store.audit_pages.AuditQuery)."""
        asked = {name: value for name, value in body.items() if name not in FILLED}
        return await page(self.jet, AuditQuery.model_validate(asked))

    async def sign_head(self, body: Body) -> Body:
        """Sign the end of the audit chain. accept_break: it need not hold the last signed entry."""
        head, envelope = await self._signed(accept_break=body.get("accept_break") is True)
        return {
            "number": head.number,
            "entry": head.entry.hex(),
            "at_us": head.at_us,
            "head": envelope.decode(),
        }

    async def run(self) -> None:
        """Sign the end every SIGN_S, if the chain has grown, until cancelled."""
        while True:
            await asyncio.sleep(SIGN_S)
            try:
                await self._signed(if_grown=True)
            except LucidError as error:
                log.error("audit_head_unsigned", error=error)

    async def _signed(self, *, if_grown: bool = False, accept_break: bool = False) -> tuple[AuditHead, bytes]:
        """The head of the chain as it is now, and its envelope. Raises EvidenceFalse (audit.broken)."""
        known, envelope = (None, b"") if accept_break else await self._last_head()
        end = await self._follow(known)
        if known is not None and if_grown and end.number == known.number:
            return known, envelope
        signer = self.signers.at(self.clock_us())
        at_us = max(self.clock_us(), signer.from_us)
        head = AuditHead(installation=self.installation(), number=end.number, entry=end.digest, at_us=at_us)
        envelope = dsse.build(head.build(), dsse.AUDIT_HEAD, signer.sign, signer.public)
        await self.jet.publish(subjects.AUDIT_HEADS, envelope)
        log.info("audit_head_signed", number=head.number, signer=signer.fingerprint.hex()[:16])
        return head, envelope

    async def _last_head(self) -> tuple[AuditHead | None, bytes]:
        """The newest head, if it is one of ours."""
        last = await self.jet.last(subjects.AUDIT, subjects.AUDIT_HEADS)
        if last is not None:
            raw = bytes(last.data)
            with suppress(Rejected):
                envelope = dsse.parse(raw, dsse.AUDIT_HEAD)
                if self.signers.of(envelope.keyid) is not None:
                    return AuditHead.within(envelope), raw
            log.error("audit_head_foreign", seq=last.seq)
        return None, b""

    async def _follow(self, known: AuditHead | None) -> Head:
        """The end of the chain that goes on from a signed entry. Raises EvidenceFalse (audit.broken)."""
        walk, begun = Walk(), known is None or known.number == 0
        some: list[bytes] = []
        async for line in lines_from(self.jet, known.number if known else 0):
            if begun:
                some.append(line)
            elif known is not None and h(line) == known.entry:
                walk.head, begun = head_of(line, read_entry(line)), True
            if len(some) == STEP_LINES:
                await asyncio.to_thread(_take, walk, some)
                some = []
        await asyncio.to_thread(_take, walk, some)
        if not begun and known is not None:
            raise EvidenceFalse(
                f"the audit chain does not hold entry {known.number} as it was signed; its end is not signed",
                code="audit.broken",
                hint="lucid audit verify",
            )
        for finding in walk.findings:  # the signature hides none of them: every reader finds them again
            log.error("audit_chain_broken", number=finding.number, code=finding.code)
        return walk.head


def _take(walk: Walk, lines: list[bytes]) -> None:
    for line in lines:
        walk.take(line)
