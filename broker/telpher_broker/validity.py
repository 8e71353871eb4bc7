"""Until when certificates and revocation lists hold, which `ssl` checks and does not tell.

They are read as far as the dates and no further: PEM (RFC 7468) around DER around the structures
of RFC 5280, sections 4.1 and 5.1. OpenSSL has taken a file before it comes here.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

CERTIFICATE: Final = b"CERTIFICATE"
REVOCATION_LIST: Final = b"X509 CRL"
_BLOCK: Final = rb"-----BEGIN %s-----([A-Za-z0-9+/=\s]+)-----END %s-----"
_INTEGER, _UTC_TIME, _TIME, _SEQUENCE, _VERSION = 0x02, 0x17, 0x18, 0x30, 0xA0


def end_of(pem: bytes, label: bytes) -> datetime | None:
    """When the first of all `label` blocks of a file ends to hold; None: never, or there is none.

    Raises ValueError for what is no DER of its kind.
    """
    blocks = re.findall(_BLOCK % (label, label), pem)
    find = _certificate_end if label == CERTIFICATE else _list_end
    ends = [find(a2b_base64(block)) for block in blocks]
    return min((end for end in ends if end is not None), default=None)


def _certificate_end(data: bytes) -> datetime | None:
    fields = _to_be_signed(data)
    _, _, _, validity, *_ = (part for part in fields if part[0] not in (_VERSION,))
    _, (tag, text) = _parts(validity[1])
    return _time(tag, text)


def _list_end(data: bytes) -> datetime | None:
    """A list that does not say when the next comes holds for ever."""
    times = [part for part in _to_be_signed(data) if part[0] in (_UTC_TIME, _TIME)]
    return _time(*times[1]) if len(times) > 1 else None


def _to_be_signed(data: bytes) -> list[tuple[int, bytes]]:
    ((tag, whole),) = _parts(data)
    inner, *_ = _parts(whole)
    if (tag, inner[0]) != (_SEQUENCE, _SEQUENCE):
        raise ValueError("no sequence")
    return list(_parts(inner[1]))


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that follow each other in `data`: tag and content."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("cut off")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + length]
        at += length


def _time(tag: int, text: bytes) -> datetime:
    """UTCTime and GeneralizedTime, as RFC 5280 restricts them."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
