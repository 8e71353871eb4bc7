"""Opening a byte stream to one of a broker's hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import ByteStream

from .url import Address, host_text

HOST_SECONDS: Final = 5.0

# Opens one stream, or raises OSError; tests put their own in.
Dialer = Callable[[], Awaitable[ByteStream]]


def dialers(address: Address) -> list[tuple[str, Dialer]]:
    """A name for messages and a way to connect, for every host of an address, in order."""
    if address.path is not None:
        path = address.path
        return [(path, lambda: anyio.connect_unix(path))]
    return [
        (host_text(host, port), _tcp_dialer(address, host, port)) for host, port in address.hosts
    ]


def _tcp_dialer(address: Address, host: str, port: int) -> Dialer:
    async def dial() -> ByteStream:
        stream = await anyio.connect_tcp(host, port)
        if address.tls == "off":
            return stream
        return await _with_tls(address, host, stream)

    return dial


async def _with_tls(address: Address, host: str, stream: ByteStream) -> ByteStream:
    import ssl  # 20 ms that a connection without TLS need not pay

    from anyio.streams.tls import TLSStream

    context = ssl.create_default_context(cafile=address.ca)
    if address.tls == "insecure":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.cert is not None:
        context.load_cert_chain(address.cert, address.key)
    try:
        return await TLSStream.wrap(stream, hostname=host, ssl_context=context)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
