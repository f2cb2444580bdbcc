"""The independent reader of audit chains, on the documented example and on changed copies of it."""

from __future__ import annotations

import format_examples
import pytest
import reader_audit
from writer_host import signing


@pytest.fixture(scope="module")
def chain() -> tuple[list[bytes], bytes]:
    blocks = format_examples.read_blocks(format_examples.DOCUMENT.read_text())
    return [blocks["audit-1"], blocks["audit-2"]], blocks["audit-head"]


def test_the_documented_chain_and_its_head_hold(chain: tuple[list[bytes], bytes]) -> None:
    """Breaks: a stranger who follows the page refuses what is true."""
    lines, head = chain
    assert reader_audit.check_chain(lines) == []
    assert reader_audit.check_head(lines, head, signing("signer")[1]) == []


def test_every_change_of_the_documented_chain_is_found(chain: tuple[list[bytes], bytes]) -> None:
    """Breaks: the page leaves out a rule that a reader needs."""
    lines, head = chain
    signer = signing("signer")[1]
    assert reader_audit.check_chain([lines[0].replace(b"operator-7", b"operator-8"), lines[1]])
    assert reader_audit.check_chain(lines[1:])
    assert reader_audit.check_chain(lines[::-1])
    assert reader_audit.check_chain([lines[0], lines[1].replace(b":", b": ", 1)])
    assert reader_audit.check_head(lines[:1], head, signer)
    assert reader_audit.check_head([lines[0], lines[1].replace(b"ok", b"no")], head, signer)
    assert reader_audit.check_head(lines, head, signing("root")[1])
