"""Models on a server: their addresses, and what goes wrong on the way, as a sentence.

A proxy is taken from the environment (``HTTPS_PROXY``), as are certificates
(``REQUESTS_CA_BUNDLE``).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

from gitract.errors import InputError

__all__ = ["CHUNK", "TIMEOUT_S", "is_address", "plain_name", "split_address", "told_errors"]

CHUNK = 1 << 16
"""Bytes to ask for at a time: a cancel is noticed after as much."""
TIMEOUT_S = (10.0, 30.0)
"""To connect, and for the next bytes."""


def is_address(text: str) -> bool:
    """Whether this is an address, and no path."""
    return text.lower().startswith(("https://", "http://"))


def split_address(url: str) -> SplitResult:
    """The pieces of an address.

    Raises
    ------
    InputError
        It is none.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InputError(f"The address {url} cannot be used: check it.") from error


def plain_name(url: str) -> str:
    """The last part of an address, of letters that every file system takes."""
    last = PurePosixPath(split_address(url).path).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip("-.")[-80:] or "model.zip"


@contextmanager
def told_errors(url: str) -> Iterator[None]:
    """Whatever goes wrong between here and a server becomes an `InputError`."""
    import requests

    server = split_address(url).hostname or url
    try:
        yield
    except requests.HTTPError as error:
        told = str(error).partition(" for url")[0]
        raise InputError(f"{server} answers to {url}: {told}; check the address.") from error
    except requests.exceptions.SSLError as error:
        raise InputError(
            f"The certificate of {server} is not trusted: if your network brings its own, set "
            "REQUESTS_CA_BUNDLE to its file."
        ) from error
    except requests.exceptions.ProxyError as error:
        raise InputError(
            f"The proxy does not let us reach {server}: check HTTPS_PROXY, or name a folder that "
            "the catalogue was copied to."
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        if _was_cut(error):
            raise _cut(url) from error
        raise InputError(
            f"{server} cannot be reached: check the network and HTTPS_PROXY, or name a folder that "
            "the catalogue was copied to."
        ) from error
    except (requests.exceptions.ChunkedEncodingError, ConnectionResetError) as error:
        raise _cut(url) from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"The address {url} cannot be used: check it.") from error
    except OSError as error:
        reason = error.strerror or "no permission"
        raise InputError(
            f"{plain_name(url)} cannot be saved ({reason}): make room or set GITRACT_HOME to "
            "another folder."
        ) from error


def _was_cut(error: Exception) -> bool:
    """Whether a connection broke off, or fell silent, after it had been made."""
    return "Read timed out" in str(error) or "Connection broken" in str(error)


def _cut(url: str) -> InputError:
    return InputError(
        f"The connection to {split_address(url).hostname} was cut: try again, and the download "
        "goes on where it was."
    )
