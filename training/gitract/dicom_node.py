"""Sending DICOM files to a node of the clinic's network: an archive, a planning system.

A node is known by its host, its port and its AE title, and it knows us by ours, which many of
them must be told before they take anything. `echo` asks whether it answers (C-ECHO), `send`
gives it files (C-STORE). Nothing is sent but the files named, and they are sent as they are.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gitract.errors import GitractError, InputError
from gitract.progress import Progress, Report, silent

if TYPE_CHECKING:
    from pydicom.uid import UID
    from pynetdicom.association import Association

__all__ = ["CALLING_AE_TITLE", "DicomNode", "Sent", "echo", "files_to_send", "send"]

CALLING_AE_TITLE = "GITRACT"
"""What we are called where nothing else is said."""

_LONGEST_TITLE = 16
_CONNECT_S, _ANSWER_S = 10.0, 30.0
_VERIFICATION = "1.2.840.10008.1.1"
_MOST_CONTEXTS = 128
_SUCCESS = 0x0000
_WARNINGS = range(0xB000, 0xC000)
# Of A-ASSOCIATE-RJ (PS3.8, 9.3.4): source and reason.
_UNKNOWN_CALLING, _UNKNOWN_CALLED = (1, 3), (1, 7)
# Of C-STORE (PS3.4, B.2.3), by the first digits.
_FAILURES = (
    (range(0xA700, 0xA800), "it is out of space"),
    (range(0xA900, 0xAA00), "the file is not what it says it is"),
    (range(0xC000, 0xD000), "it cannot understand the file"),
    (range(0x0122, 0x0123), "it does not keep this kind of file"),
    (range(0x0124, 0x0125), "it does not permit it"),
)


@dataclass(frozen=True)
class DicomNode:
    """A DICOM node, and what we call ourselves to it.

    Parameters
    ----------
    host, port
        Where it listens.
    ae_title
        What it is called: 1 to 16 characters, capitals matter.
    calling_ae_title
        What we are called.

    Raises
    ------
    InputError
        One of them cannot be.
    """

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = CALLING_AE_TITLE

    def __post_init__(self) -> None:
        if not self.host.strip() or any(c.isspace() for c in self.host):
            raise InputError(f"The host {self.host!r} is none: give a name or an address.")
        if not 0 < self.port < 65536:
            raise InputError(
                f"The port {self.port} is none: give a number from 1 to 65535, often 104 or 11112."
            )
        for title in (self.ae_title, self.calling_ae_title):
            if not _is_title(title):
                raise InputError(
                    f"The AE title {title!r} is none: give 1 to {_LONGEST_TITLE} letters, digits "
                    "and signs, without a backslash."
                )

    @classmethod
    def parse(cls, text: str, calling_ae_title: str = CALLING_AE_TITLE) -> "DicomNode":
        """A node as it is written in one line, ``ARCHIVE@pacs.hospital.org:104``.

        Raises
        ------
        InputError
            It is not like that.
        """
        title, at, place = text.strip().rpartition("@")
        host, colon, port = place.rpartition(":")
        if not (at and colon and port.isdecimal()):
            raise InputError(f"The DICOM node {text!r} is not like ARCHIVE@pacs.hospital.org:104.")
        return cls(host.removeprefix("[").removesuffix("]"), int(port), title, calling_ae_title)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


def _is_title(title: str) -> bool:
    printable = all(" " <= character <= "~" and character != "\\" for character in title)
    return printable and title == title.strip() and 0 < len(title) <= _LONGEST_TITLE


class Sent(NamedTuple):
    """A file that the node took; `warning` is what it found odd, else empty."""

    path: Path
    warning: str


class _ToSend(NamedTuple):
    path: Path
    sop_class: "UID"
    syntax: "UID"


# --- what is asked of a node ------------------------------------------------------------


def echo(node: DicomNode) -> None:
    """Ask a node whether it is there and talks to us.

    Raises
    ------
    GitractError
        It is not, or does not; the sentence says why.
    """
    with _associated(node, {_VERIFICATION: ["1.2.840.10008.1.2"]}) as association:
        status = association.send_c_echo()
        if status.get("Status") != _SUCCESS:
            raise GitractError(
                f"{node} let us in and did not answer a C-ECHO: ask who runs it, or try again."
            )


def send(
    files: Sequence[str | Path], node: DicomNode, *, report: Report = silent
) -> tuple[Sent, ...]:
    """Give files to a node, which says of each whether it took it.

    Parameters
    ----------
    files
        DICOM files, and folders, which stand for the DICOM files in them.
    node
        Where to.
    report
        Called before each file. What it raises ends the sending between two files; what was
        sent by then is the node's.

    Returns
    -------
    tuple of Sent
        One for each file, in their order.

    Raises
    ------
    InputError
        A path is missing or no DICOM file; then nothing is sent.
    GitractError
        The node is not there, refuses us or a file, or falls silent; the sentence says why,
        and how many files it had taken.
    """
    waiting = files_to_send(files)
    syntaxes: dict[str, list[str]] = {}
    for one in waiting:
        for syntax in _offered(one.syntax):
            known = syntaxes.setdefault(one.sop_class, [])
            known += [syntax] * (syntax not in known)
    report(Progress(0, len(waiting), f"Connecting to {node}"))
    sent: list[Sent] = []
    with _associated(node, syntaxes) as association:
        for one in waiting:
            report(Progress(len(sent), len(waiting), f"Sending {one.path.name}"))
            sent.append(Sent(one.path, _store(association, one, node, len(sent))))
    return tuple(sent)


def files_to_send(paths: Sequence[str | Path]) -> list[_ToSend]:
    """The DICOM files that paths stand for, each once, with their kind and encoding.

    Raises
    ------
    InputError
        A path is missing, is no DICOM file, or is a folder without one.
    """
    found: dict[Path, _ToSend] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = [_looked_at(file) for file in sorted(path.rglob("*")) if file.is_file()]
            chosen = [one for one in inside if one is not None]
            if not chosen:
                raise InputError(f"{path} holds no DICOM file: choose another folder.")
        else:
            if not path.exists():
                raise InputError(f"{path} does not exist: check the path.")
            only = _looked_at(path)
            if only is None:
                raise InputError(
                    f"{path} is no whole DICOM file, and a DICOM node takes nothing else: export "
                    "contours as .rtstruct.dcm or .seg.dcm."
                )
            chosen = [only]
        found.update((one.path, one) for one in chosen)
    if not found:
        raise InputError("No file is named: give at least one.")
    return list(found.values())


def _looked_at(path: Path) -> _ToSend | None:
    """What a file is to a node; None where it is no DICOM file with all that one asks for."""
    from pydicom.filereader import read_file_meta_info

    from gitract.io._dicom_files import damage, quiet

    try:
        with quiet():
            meta = read_file_meta_info(path)
            return _ToSend(path, meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    except damage():
        return None


def _offered(syntax: "UID") -> list[str]:
    """The encodings in which a file can be sent: its own, and implicit VR for a plain one.

    Every node must know implicit VR (PS3.5, 10.1); compressed pixels go as they are.
    """
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    return [*plain] if syntax in plain else [syntax]


# --- talking ----------------------------------------------------------------------------


@contextmanager
def _associated(node: DicomNode, syntaxes: dict[str, list[str]]) -> "Iterator[Association]":
    """A conversation with a node about kinds of files, SOP class -> encodings; then it ends.

    Each encoding is offered on its own, so that the node cannot choose one for all.
    """
    from pynetdicom import AE, build_context

    _reach(node)
    entity = AE(ae_title=node.calling_ae_title)
    entity.connection_timeout = _CONNECT_S
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ANSWER_S
    pairs = [(kind, syntax) for kind, known in syntaxes.items() for syntax in known]
    if len(pairs) > _MOST_CONTEXTS:
        raise InputError(f"The files are of {len(pairs)} kinds: send fewer kinds at once.")
    contexts = [build_context(kind, syntax) for kind, syntax in pairs]
    association = entity.associate(node.host, node.port, contexts, ae_title=node.ae_title)
    if not association.is_established:
        raise _not_associated(association, node)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _reach(node: DicomNode) -> None:
    """Find out whether anything listens there; the DICOM library only says that it failed."""
    try:
        socket.create_connection((node.host, node.port), timeout=_CONNECT_S).close()
    except socket.gaierror as error:
        raise GitractError(
            f"There is no host {node.host!r}, or the network does not know it: check the name."
        ) from error
    except ConnectionRefusedError as error:
        raise GitractError(
            f"Nothing listens on {node.host}, port {node.port}: check the port, and that the node "
            "runs."
        ) from error
    except TimeoutError as error:
        raise GitractError(
            f"{node.host}, port {node.port}, did not answer within {_CONNECT_S:.0f} s: check the "
            "address; a firewall may be between."
        ) from error
    except OSError as error:
        raise GitractError(
            f"{node.host}, port {node.port}, cannot be reached ({error.strerror or error}): check "
            "the address and the network."
        ) from error


def _not_associated(association: "Association", node: DicomNode) -> GitractError:
    """Why a node that listens would not talk."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = (answer.result_source, answer.diagnostic)
        if reason == _UNKNOWN_CALLED:
            return GitractError(
                f"The node at {node.host}, port {node.port}, is not called {node.ae_title!r}: ask "
                "for its AE title; capitals matter."
            )
        if reason == _UNKNOWN_CALLING:
            return GitractError(
                f"{node} does not know the AE title {node.calling_ae_title!r}: have it entered "
                "there, or give the one that is."
            )
        return GitractError(f"{node} refused us ({answer.reason_str}): ask who runs it.")
    if association.rejected_contexts:
        refused = (context.abstract_syntax for context in association.rejected_contexts)
        kinds = dict.fromkeys(kind.name for kind in refused if kind is not None)
        return GitractError(f"{node} takes no {' and no '.join(kinds)}: choose another node.")
    return GitractError(
        f"{node.host}, port {node.port}, listens and does not answer as a DICOM node does: check "
        "the port."
    )


def _store(association: "Association", one: _ToSend, node: DicomNode, taken: int) -> str:
    """Send one file; what the node found odd about it, or nothing."""
    from gitract.io._dicom_files import damage, quiet

    after = f" ({taken} files were taken before)" if taken else ""
    if not association.is_established:
        raise GitractError(f"{node} ended the connection{after}: try again.")
    try:
        with quiet():
            answer = association.send_c_store(one.path)
    except damage() as error:
        raise GitractError(
            f"{node} does not take {one.path.name} ({one.sop_class.name}, "
            f"{one.syntax.name}){after}: choose another node, or another format."
        ) from error
    status = answer.get("Status")
    if status is None:
        raise GitractError(
            f"{node} fell silent while it was sent {one.path.name}{after}: try again."
        )
    if status == _SUCCESS:
        return ""
    said = str(answer.get("ErrorComment") or "").strip()
    if status in _WARNINGS:
        return said or f"it changed or dropped something (status {status:04X})"
    why = next((text for codes, text in _FAILURES if status in codes), "it failed")
    told = f"{why}, status {status:04X}" + (f", {said}" if said else "")
    raise GitractError(f"{node} did not take {one.path.name} ({told}){after}: ask who runs it.")
