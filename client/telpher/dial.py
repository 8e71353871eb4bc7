"""Opening a byte stream to one of a broker's hosts, and saying why there is none."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import ByteStream

from .errors import UnusableFile
from .url import Address, host_text

if TYPE_CHECKING:
    import ssl

HOST_SECONDS: Final = 5.0

# Opens one stream, or raises OSError; tests put their own in.
Dialer = Callable[[], Awaitable[ByteStream]]

# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/: nobody known has signed it.
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})


class NotTls(OSError):
    """Somebody is there, and no TLS came of it. `is_final`: nor would it by another try."""

    def __init__(self, text: str, *, is_final: bool) -> None:
        super().__init__(text)
        self.is_final = is_final


def dialers(address: Address) -> list[tuple[str, Dialer]]:
    """A name for messages and a way to connect, for every host of an address, in order."""
    if address.path is not None:
        path = address.path
        return [(path, lambda: anyio.connect_unix(path))]
    return [
        (host_text(host, port), _tcp_dialer(address, host, port)) for host, port in address.hosts
    ]


def reason_of(error: BaseException) -> str:
    """Why a host was not reached, without what the message says anyway: who it is."""
    cause = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):  # one for each address of a name
        return ", ".join(dict.fromkeys(map(reason_of, cause.exceptions)))
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return str(cause) or type(cause).__name__


def _tcp_dialer(address: Address, host: str, port: int) -> Dialer:
    async def dial() -> ByteStream:
        if address.tls == "off":
            return await anyio.connect_tcp(host, port)
        context = _context(address)
        return await _with_tls(address, context, host, await anyio.connect_tcp(host, port))

    return dial


def _context(address: Address) -> ssl.SSLContext:
    """Made anew for each connection: files are renewed while a program runs."""
    import ssl  # 20 ms that a connection without TLS need not pay

    from .pem import PemError, load_pair, why_not_trusted

    try:
        context = ssl.create_default_context(cafile=address.ca)
    except OSError as error:
        reason = why_not_trusted(error, Path(address.ca or ""))
        raise UnusableFile(f"the URL's ca cannot be used: {reason}") from None
    if address.tls == "insecure":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.cert:
        try:
            load_pair(context, Path(address.cert), Path(address.key or address.cert))
        except PemError as error:
            name = "key" if error.is_key and address.key else "cert"
            raise UnusableFile(f"the URL's {name} cannot be used: {error}") from None
    return context


async def _with_tls(
    address: Address, context: ssl.SSLContext, host: str, stream: ByteStream
) -> ByteStream:
    import ssl

    from anyio.streams.tls import TLSStream

    try:
        return await TLSStream.wrap(stream, hostname=host, ssl_context=context)
    except BaseException as error:
        await anyio.aclose_forcefully(stream)
        if isinstance(error, ssl.SSLCertVerificationError):
            raise NotTls(_why_not_verified(error, address), is_final=True) from None
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or str(error)).lower().replace("_", " ")
            hint = "" if "alert" in reason else "; it may not speak TLS"
            raise NotTls(f"no TLS from there ({reason}){hint}", is_final=True) from None
        if isinstance(error, (anyio.EndOfStream, anyio.BrokenResourceError)):
            text = "the connection was closed instead of TLS; it may not speak TLS"
            raise NotTls(text, is_final=False) from None
        raise


def _why_not_verified(error: ssl.SSLCertVerificationError, address: Address) -> str:
    text = "certificate verify failed: " + str(error.verify_message).rstrip(".")
    if error.verify_code not in _UNKNOWN_ISSUER:
        return text
    if address.ca:
        return f"{text}; it is not of the authority in {address.ca}"
    return f"{text}; name the authority with &ca=FILE"
