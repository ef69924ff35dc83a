"""Segmenting and fine-tuning on a server, as if it were a device of this machine."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gitract.decision import Decision
from gitract.errors import Cancelled, InputError, Stopped
from gitract.model_config import WEIGHTS_FILE, ModelConfig, read_model_config
from gitract.progress import Progress, Report, silent
from gitract.remote.addresses import PREFIX, Address, is_server, known_addresses
from gitract.remote.wire import packed, unpacked
from gitract.scan import Scan, Segmentation
from gitract.views import Views

if TYPE_CHECKING:
    from gitract.corrections import Corrections
    from gitract.fine_tune import Candidate, FineTuneSettings
    from gitract.model_store import ModelInfo, ModelStore
    from gitract.predict import Arrived, Segmenter

__all__ = ["RemoteSegmenter", "fine_tune_on", "open_segmenter", "server_of"]

_ASK_EVERY_S = 0.2
_ANSWERS_WITHIN_S = 60.0
_MOST_UNPACKED = 1 << 36

Arrays = Mapping[str, np.ndarray]


class Server:
    """A server, spoken to.

    Parameters
    ----------
    name, address
        What the user calls it, and where it is.
    """

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self._address = address
        self._context: ssl.SSLContext | None = None
        if address.url.startswith("https:"):
            try:
                self._context = ssl.create_default_context(cafile=address.certificate)
            except OSError as error:
                raise InputError(
                    f"The certificate {address.certificate} cannot be read: {error.strerror}."
                ) from error

    def about(self) -> dict[str, Any]:
        """What the server says of itself.

        Raises
        ------
        InputError
            It does not answer, or not to this token.
        """
        return dict(json.loads(self._call("GET", "about")))

    def run(
        self, content: Mapping[str, Any], arrays: Arrays, report: Report
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Have a job done.

        Parameters
        ----------
        content, arrays
            What `gitract.remote.work.Workshop.work` takes.
        report
            Gets the messages of the job; what it raises ends the job there as well.

        Raises
        ------
        InputError
            The job failed, or the server does not answer.
        """
        report(Progress(0, 0, f"Sending the scan to {self.name}"))
        job = json.loads(self._call("POST", "jobs", packed(content, arrays)))["job"]
        try:
            self._wait(job, report)
        except BaseException:
            self._abandon(job)
            raise
        return unpacked(self._call("GET", f"jobs/{job}/result"), most=_MOST_UNPACKED)

    def send_model(self, config: ModelConfig, folder: Path, report: Report) -> None:
        """Send a model that the server does not have."""
        try:
            self._call("GET", f"models/{config.weights_sha256}")
        except _NotThereError:
            report(Progress(0, 0, f"Sending the model to {self.name}"))
            weights = np.frombuffer((folder / WEIGHTS_FILE).read_bytes(), np.uint8)
            content = {"config": config.model_dump(mode="json")}
            self._call("POST", "models", packed(content, {"weights": weights}))

    def _wait(self, job: str, report: Report) -> None:
        seen = 0
        while True:
            told = json.loads(self._call("GET", f"jobs/{job}?since={seen}"))
            for message in told["messages"]:
                seen += 1
                try:
                    report(Progress(**message))
                except Stopped:
                    self._call("POST", f"jobs/{job}/stop")
            match told["state"]:
                case "done":
                    return
                case "failed":
                    raise InputError(told["error"])
                case "cancelled":
                    raise Cancelled
            time.sleep(_ASK_EVERY_S)

    def _abandon(self, job: str) -> None:
        with suppress(InputError):  # if it is gone it notices by itself that nobody asks
            self._call("DELETE", f"jobs/{job}")

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            f"{self._address.url.rstrip('/')}/v1/{path}", body, method=method,
            headers={"Authorization": f"Bearer {self._address.token}",
                     "Content-Type": "application/octet-stream"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(
                request, timeout=_ANSWERS_WITHIN_S, context=self._context
            ) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise self._refusal(error, path) from error
        except (OSError, ValueError) as error:  # no such host, refused, timed out, certificate
            reason = getattr(error, "reason", None) or error
            raise InputError(
                f"The server {self.name} at {self._address.url} does not answer ({reason}): see "
                "that `gitract serve` runs there, or choose another device."
            ) from error

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> InputError:
        try:
            sentence = str(json.loads(error.read())["error"])
        except (ValueError, KeyError, TypeError):
            sentence = f"The server {self.name} answered {error.code}."
        if error.code == 404 and path.startswith("models/"):
            return _NotThereError(sentence)
        return InputError(sentence)


class _NotThereError(InputError):
    """The server has no such model."""


def server_of(device: str, home: Path | None = None) -> Server:
    """The server that a device's name means.

    Raises
    ------
    InputError
        The user knows no such server.
    """
    name = device.removeprefix(PREFIX)
    known = known_addresses(home)
    if name not in known:
        raise InputError(
            f"There is no server {name!r}: known are {', '.join(known) or 'none'}; "
            "add it with `gitract servers add`."
        )
    return Server(name, known[name])


class RemoteSegmenter:
    """A model on a server: segments as `gitract.predict.Segmenter` does.

    Parameters
    ----------
    server
        Where.
    model, store, decision, views
        As of `Segmenter`; a model that the server lacks is sent there.
    """

    def __init__(
        self,
        server: Server,
        model: str | Path | None = None,
        *,
        store: "ModelStore | None" = None,
        decision: Decision | None = None,
        views: Views | None = None,
        report: Report = silent,
    ) -> None:
        from gitract.model_store import ModelStore

        self.model: ModelInfo = (store or ModelStore()).find(model)
        self.config = read_model_config(self.model.path)
        self.decision, self.views = decision or Decision(), views or Views()
        self.decision.thresholds(self.config.organs)
        self._server = server
        self.device = f"{PREFIX}{server.name}"
        server.send_model(self.config, self.model.path, report)

    def segment(
        self,
        scan: Scan,
        *,
        slices: Iterable[int] | None = None,
        first: int | None = None,
        arrived: "Arrived | None" = None,
        report: Report = silent,
    ) -> Segmentation:
        """As `Segmenter.segment`; slices arrive all at once, at the end."""
        return self._segment(scan, slices, first, arrived, report, likely=False)[0]

    def segment_with_probabilities(
        self,
        scan: Scan,
        *,
        slices: Iterable[int] | None = None,
        first: int | None = None,
        arrived: "Arrived | None" = None,
        report: Report = silent,
    ) -> tuple[Segmentation, npt.NDArray[np.float16]]:
        """As `Segmenter.segment_with_probabilities`."""
        found, arrays = self._segment(scan, slices, first, arrived, report, likely=True)
        return found, arrays["probabilities"]

    def _segment(
        self,
        scan: Scan,
        slices: Iterable[int] | None,
        first: int | None,
        arrived: "Arrived | None",
        report: Report,
        *,
        likely: bool,
    ) -> tuple[Segmentation, dict[str, np.ndarray]]:
        content = {
            "kind": "segment",
            "model": self.config.weights_sha256,
            **_place(scan),
            "slices": None if slices is None else [int(index) for index in slices],
            "first": first,
            "decision": self.decision.model_dump(mode="json"),
            "views": self.views.model_dump(mode="json"),
            "probabilities": likely,
        }
        told, arrays = self._server.run(content, {"voxels": scan.voxels}, report)
        found = Segmentation(
            masks=arrays["masks"],
            spacing=scan.spacing,
            affine=scan.affine,
            organs=self.config.organs,
            name=scan.name,
            slice_numbers=scan.slice_numbers,
            stored=scan.stored,
            provenance=told["provenance"] | {"model": self.model.id},
            remarks=tuple(told["remarks"]),
        )
        if arrived is not None:
            indices = list(found.provenance["slices"])
            arrived(indices, found.masks[:, indices].swapaxes(0, 1))
        return found, arrays


def _place(scan: Scan) -> dict[str, Any]:
    """All that a server learns of a scan but its voxels."""
    return {"spacing": list(scan.spacing), "affine": scan.affine.tolist()}


def open_segmenter(
    model: str | Path | Sequence[str | Path] | None = None,
    *,
    device: str = "auto",
    decision: Decision | None = None,
    views: Views | None = None,
    report: Report = silent,
) -> "Segmenter | RemoteSegmenter":
    """A model on a device, which may be a server.

    Raises
    ------
    InputError
        As of `Segmenter`; or the server is unknown, does not answer, or is given several
        models.
    """
    if not is_server(device):
        from gitract.predict import Segmenter

        return Segmenter(model, device=device, decision=decision, views=views)
    if not (model is None or isinstance(model, (str, Path))):
        names = list(model)
        if len(names) > 1:
            raise InputError("A server segments with one model: give one, or another device.")
        model = names[0] if names else None
    server = server_of(device)
    return RemoteSegmenter(server, model, decision=decision, views=views, report=report)


def fine_tune_on(
    device: str,
    corrections: "Sequence[Corrections]",
    *,
    model: str | Path | None = None,
    settings: "FineTuneSettings | None" = None,
    replay: Path | None = None,
    report: Report = silent,
) -> "Candidate":
    """Fine-tune on a device, which may be a server; otherwise as `gitract.fine_tune.fine_tune`.

    Raises
    ------
    InputError
        As there; or the server is unknown or does not answer, or a replay folder is given,
        which would have to be on the server.
    """
    if not is_server(device):
        from gitract.fine_tune import fine_tune

        return fine_tune(
            corrections, model=model, device=device, settings=settings, replay=replay,
            report=report,
        )  # fmt: skip
    from gitract.corrections import CorrectionStore
    from gitract.fine_tune import Candidate, FineTuneSettings
    from gitract.model_store import ModelStore
    from gitract.remote.wire import told_of

    if replay is not None:
        raise InputError(
            f"A replay folder is read where the training runs, and {device} is another machine: "
            "choose a device of this one."
        )
    server, store = server_of(device), ModelStore()
    parent = store.find(model)
    config = read_model_config(parent.path)
    server.send_model(config, parent.path, report)
    placed = [replace(one, segmentation=one.segmentation.on(one.scan)) for one in corrections]
    earlier = CorrectionStore(store.home).load(without=[one.key for one in placed])
    patients = list(dict.fromkeys(one.whose for one in placed))
    content = {
        "kind": "fine-tune",
        "model": config.weights_sha256,
        "corrections": [{**told_of(one), "patient": patients.index(one.whose)} for one in placed],
        "earlier": [told_of(one) for one in earlier],
        "settings": (settings or FineTuneSettings()).model_dump(mode="json"),
    }
    arrays: dict[str, np.ndarray] = {}
    for number, one in enumerate([*placed, *earlier]):
        arrays |= {f"voxels{number}": one.scan.voxels, f"masks{number}": one.segmentation.masks}
    told, found = server.run(content, arrays, report)
    received = ModelConfig.model_validate(told["config"])
    drawn = [(found[f"before{i}"], found[f"after{i}"]) for i in range(len(placed))]
    return Candidate.received(
        told["card"], parent, placed, drawn, received, found["weights"].tobytes(), store
    )
