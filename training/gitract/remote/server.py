"""The HTTP side of `gitract serve`.

====== ============================ =====================================================
GET    ``/v1/about``                software, device, limits
GET    ``/v1/models/SHA256``        204 where the server has these weights, else 404
POST   ``/v1/models``               send a model: its configuration and weights
POST   ``/v1/jobs``                 begin to segment or to fine-tune; answers with the job's id
GET    ``/v1/jobs/ID?since=N``      state, and the progress messages from number N on
GET    ``/v1/jobs/ID/result``       the result; with it the server forgets the job
POST   ``/v1/jobs/ID/stop``         end a training, keep the best so far
DELETE ``/v1/jobs/ID``              cancel and forget
====== ============================ =====================================================

Every request bears the token. Scans and contours are held in memory while their job lasts;
names, dates and whatever else says whose they are never get here.
"""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from gitract._version import __version__
from gitract.errors import InputError
from gitract.remote.jobs import Job, Jobs
from gitract.remote.wire import unpacked
from gitract.remote.work import Workshop

__all__ = ["create_app"]

_BINARY = "application/octet-stream"


def create_app(workshop: Workshop, token: str, *, most_bytes: int) -> FastAPI:
    """The web application of a server.

    Parameters
    ----------
    workshop
        What does the work.
    token
        What every request must bear.
    most_bytes
        Of a message, packed; unpacked it may have eight times as many.
    """
    jobs = Jobs()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(jobs.close)

    def allowed(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "The token is not that of the server.")

    app = FastAPI(
        title="gitract", version=__version__, lifespan=lifespan, dependencies=[Depends(allowed)],
        docs_url=None, redoc_url=None, openapi_url=None,
    )  # fmt: skip

    def found(name: str) -> Job:
        job = jobs.find(name)
        if job is None:
            raise HTTPException(404, "The server does not know this job any more.")
        return job

    async def body(request: Request) -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                raise HTTPException(
                    413, f"The scan is too large for the server, which takes {most_bytes >> 20} MB."
                )
            parts.append(part)
        return b"".join(parts)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.get("/v1/about")
    def about() -> dict[str, object]:
        return {"software": __version__, "device": workshop.device, "most_bytes": most_bytes}

    @app.get("/v1/models/{weights_sha256}")
    def has_model(weights_sha256: str) -> Response:
        return Response(status_code=204 if workshop.knows(weights_sha256) else 404)

    @app.post("/v1/models", status_code=204)
    async def send_model(request: Request) -> Response:
        message = await body(request)
        content, arrays = await run_in_threadpool(unpacked, message, most=8 * most_bytes)
        await run_in_threadpool(workshop.add_model, content, arrays)
        return Response(status_code=204)

    @app.post("/v1/jobs")
    async def begin(request: Request) -> dict[str, str]:
        message = await body(request)
        content, arrays = await run_in_threadpool(unpacked, message, most=8 * most_bytes)
        job = jobs.start(workshop.work(content, arrays))
        return {"job": job.id}

    @app.get("/v1/jobs/{name}")
    def state(name: str, since: int = 0) -> dict[str, object]:
        job = found(name)
        state = job.state  # before the messages: a done job has said everything
        messages = [asdict(one) for one in job.history[since:]]
        return {"state": state, "error": job.error, "messages": messages}

    @app.get("/v1/jobs/{name}/result")
    def result(name: str) -> Response:
        job = found(name)
        if job.result is None:
            raise HTTPException(409, "The job is not done.")
        jobs.forget(job)
        return Response(job.result, media_type=_BINARY)

    @app.post("/v1/jobs/{name}/stop", status_code=204)
    def stop(name: str) -> Response:
        found(name).stop()
        return Response(status_code=204)

    @app.delete("/v1/jobs/{name}", status_code=204)
    def cancel(name: str) -> Response:
        jobs.forget(found(name))
        return Response(status_code=204)

    return app
