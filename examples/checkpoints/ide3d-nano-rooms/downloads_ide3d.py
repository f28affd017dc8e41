"""Files from elsewhere: bounded in size and time, whole, or an error that says why."""

import ipaddress
import os
import socket
import time
import urllib.request
from collections.abc import Collection
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Timer
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

__all__ = ["check_not_special", "copy_stream", "download", "find_local_path"]

PRIVATE_VARIABLE = "IDE3D_PRIVATE_URLS"  # 1 opens this machine and its network to URLs, 0 closes them wholly
TIMEOUT_SECONDS = 30  # without any answer
MAX_SECONDS = 600
CHUNK_BYTES = 1024**2
URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"


class _TooLargeError(ValueError):
    """More bytes than are accepted."""


class _RefusedAddressError(ValueError):
    """An address that is not asked."""


def find_local_path(address: str) -> str | None:
    """Return the local path of a path or `file:` URL; None for http and https."""
    scheme, separator, rest = address.partition(":")
    if separator and scheme.lower() == "file":
        return urllib.request.url2pathname(urlsplit(address).path)
    return None if scheme.lower() in ("http", "https") and rest.startswith("//") else address


def check_not_special(path: str) -> None:
    """Raise ValueError for a path of a pipe, device or socket, without opening it."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ValueError(f"{path} is a pipe, device or socket, which is not opened by its path. Give a file.")


def download(url: str, file: BinaryIO, limit: int, hosts: Collection[str] | None = None) -> None:
    """Write the content of an http or https URL into a file.

    Names and redirects that lead to this machine or a private network are refused. A URL may say such an address
    itself, `localhost` or a number that is not link-local: the user's own choice. The environment variable
    `IDE3D_PRIVATE_URLS` refuses that too with 0, for services that take URLs from strangers, and allows all with 1.
    Proxies of the environment are the user's choice, and are taken.

    Args:
        url (`str`):
            Address of the content.
        file (binary file):
            Open for writing; it is left at its end.
        limit (`int`):
            Most bytes that are accepted. The announced size is checked before the content comes.
        hosts (`Collection[str]`, *optional*):
            For URLs of strangers: the hosts that may be asked, wherever they lie; if empty, every public one. Private
            addresses are then refused also where the URL says them itself.

    Raises:
        ConnectionError: if the server does not answer, has no such file, or ends early.
        TimeoutError: if the content takes more than ten minutes.
        ValueError: for more than `limit` bytes, or an address that is refused.
    """
    end, sockets = time.monotonic() + MAX_SECONDS, []
    clock = Timer(MAX_SECONDS, lambda: [each.shutdown(socket.SHUT_RDWR) for each in sockets if each.fileno() >= 0])
    clock.daemon = True
    clock.start()
    try:
        # As browsers do, which take blanks and letters of all languages.
        request = urllib.request.Request(quote(url, safe=URL_CHARACTERS), headers={"User-Agent": "ide3d"})
        with _make_opener(sockets, url, hosts).open(request, timeout=TIMEOUT_SECONDS) as answer:
            length = answer.headers.get("Content-Length") or ""
            announced = int(length) if length.isdecimal() else 0
            _check_size(announced, limit, url)
            # One piece of the network at a time: a server that trickles must not hold the clock.
            received = copy_stream(SimpleNamespace(read=answer.read1), file, limit, url)
    except _RefusedAddressError as error:
        raise ValueError(f"{url} is not downloaded. {error}") from error
    except _TooLargeError:
        raise
    except (OSError, ValueError, HTTPException) as error:  # urllib's errors are among them
        if isinstance(error, TimeoutError) or time.monotonic() > end:
            raise _late(url) from error
        raise ConnectionError(f"{url} cannot be downloaded ({error}). Check the address and the network.") from error
    finally:
        clock.cancel()
    if time.monotonic() > end:
        raise _late(url)
    if received < announced:
        raise ConnectionError(f"{url} ended after {received} of {announced} bytes. Download it again.")


def copy_stream(source: Any, file: BinaryIO, limit: int, name: str) -> int:
    """Copy what a stream gives into a file.

    Args:
        source (`Any`):
            Object with `read(size)`.
        file (binary file):
            Open for writing; it is left at its end.
        limit (`int`):
            Most bytes that are accepted.
        name (`str`):
            How errors call the stream.

    Returns:
        `int`: Number of bytes.

    Raises:
        TimeoutError: if it takes more than ten minutes.
        ValueError: for more than `limit` bytes.
    """
    received, end = 0, time.monotonic() + MAX_SECONDS
    while chunk := source.read(CHUNK_BYTES):
        received += len(chunk)
        _check_size(received, limit, name)
        if time.monotonic() > end:
            raise _late(name)
        file.write(chunk)
    return received


def _late(name: str) -> TimeoutError:
    return TimeoutError(f"{name} is still coming after {MAX_SECONDS} s. Download it first, and give the path.")


def _make_opener(
    sockets: list[socket.socket], url: str, hosts: Collection[str] | None = None
) -> urllib.request.OpenerDirector:
    """Return an opener that notes its sockets and refuses addresses; see `download`."""
    opens_all = os.environ.get(PRIVATE_VARIABLE, "").lower() in ("1", "true", "yes")
    is_own_choice = hosts is None and os.environ.get(PRIVATE_VARIABLE, "") == ""
    own = urlsplit(url).hostname if is_own_choice else None

    def open_with(handler: Any, kind: type, request: Any, **options: Any) -> Any:
        address = urlsplit(request.full_url)
        if hosts and address.hostname not in hosts:  # of a redirect too
            allowed = ", ".join(sorted(hosts))
            raise _RefusedAddressError(f"It leads to {address.hostname}; allowed hosts are {allowed}.")
        is_free = opens_all or bool(hosts)
        is_proxied = request.has_proxy() or bool(request._tunnel_host)
        if is_proxied and not is_free:  # The proxy looks the name up, so numbers alone are known here.
            _check_address(address.hostname, [address.hostname], own)

        def connect(place: tuple[str, int], timeout: Any = None, *rest: Any, **more: Any) -> socket.socket:
            found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
            if not is_free and not is_proxied:
                _check_address(place[0], [entry[4][0] for entry in found], own)
            sockets.append(socket.create_connection(found[0][4][:2], timeout, *rest, **more))
            return sockets[-1]

        def make(*args: Any, **kwargs: Any) -> HTTPConnection:
            connection = kind(*args, **kwargs)
            connection._create_connection = connect
            return connection

        return handler.do_open(make, request, **options)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: Any) -> Any:
            return open_with(self, HTTPConnection, request)

    class SafeHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: Any) -> Any:
            return open_with(self, HTTPSConnection, request, context=self._context)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        PlainHandler(),
        SafeHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _check_address(host: str | None, found: list[Any], own: str | None) -> None:
    is_own = host is not None and host == own and _read_address(host) is not None
    for address in filter(None, map(_read_address, found)):
        if (not address.is_global or address.is_multicast) and not (is_own and not address.is_link_local):
            raise _RefusedAddressError(
                f"It leads to {host}, {address}: an address of this machine or of a private network, which URLs may "
                f"not reach. Download the file and give its path, or set {PRIVATE_VARIABLE}=1 if the URL is your own."
            )


def _read_address(text: Any) -> Any:
    """Return the address that a text says; None for a name."""
    if str(text).rstrip(".").lower() == "localhost":
        return ipaddress.ip_address("127.0.0.1")
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise _TooLargeError(f"{name} has more than {limit} bytes. Download it, and give the path.")
