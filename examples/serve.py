"""
Serves an archive over HTTP.

    pip install "allennlp-parallel-predict[examples]"
    python examples/serve.py examples/g2p/model.tar.gz --num-workers 2 --port 8000

    curl -d '{"source": "hello"}' http://127.0.0.1:8000/predict
    curl -d '[{"source": "hello"}, {"source": "world"}]' http://127.0.0.1:8000/predict/batch
    curl http://127.0.0.1:8000/health
    curl http://127.0.0.1:8000/metrics

Requests that come at the same time are predicted together. A request is refused at once if its body
is too large or has too many inputs (413), is no JSON (400), cannot be taken by the predictor (422),
or if more inputs wait than `--max-waiting` (429). A client that sends or reads too slowly is
disconnected; the prediction of a client that is gone is given up. SIGTERM or Ctrl-C ends the server
after the requests that are under way.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import sys
from typing import Any, AsyncIterator, Awaitable, Dict, Iterator, Optional

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from allennlp_parallel_predict import (
    AsyncPredictor,
    ModelStateError,
    PredictorClosed,
    QueueFull,
    WorkerError,
    WorkerTimeout,
)
from allennlp_parallel_predict.common.metrics import MetricsRegistry


class Refused(Exception):
    """A request that gets no prediction, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """
    # Parameters

    predictor : `AsyncPredictor`
        The predictor, not yet started.
    max_body : `int`
        The number of bytes that a request may have.
    timeout : `float`
        The seconds that a prediction may take.
    batch_size : `int`
        The inputs of `/predict/batch` that a worker gets at once.
    max_inputs : `int`, optional (default = `1000`)
        The number of inputs that a request may have.
    io_timeout : `float`, optional (default = `10.0`)
        The seconds in which a client has to send its request.
    """

    def __init__(
        self,
        predictor: AsyncPredictor,
        max_body: int,
        timeout: float,
        batch_size: int,
        max_inputs: int = 1000,
        io_timeout: float = 10.0,
    ) -> None:
        self._predictor = predictor
        self._max_body = max_body
        self._timeout = timeout
        self._batch_size = batch_size
        self._max_inputs = max_inputs
        self._io_timeout = io_timeout
        self._metrics = MetricsRegistry(lambda: predictor.statistics().metrics())

    def app(self) -> Starlette:
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/predict/batch", self.predict_batch, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        return Starlette(
            routes=routes, lifespan=self._lifespan, exception_handlers={Refused: _answer_refused}
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self._predictor:
            yield

    async def predict(self, request: Request) -> Response:
        inputs = await self._json(request)
        if not isinstance(inputs, dict):
            raise Refused(400, "the body must be a JSON object: the input of the predictor")
        prediction = self._predictor.predict_json(inputs, self._timeout)
        return _answer(await _while_connected(request, prediction))

    async def predict_batch(self, request: Request) -> Response:
        """Answers with a list: an output for each input, or `{"error": ...}` in its place."""
        inputs = await self._json(request)
        if not isinstance(inputs, list):
            raise Refused(400, "the body must be a JSON list of objects, the predictor's inputs")
        if len(inputs) > self._max_inputs:
            raise Refused(
                413, f"the body has {len(inputs)} inputs; at most {self._max_inputs} are allowed"
            )
        if not all(isinstance(item, dict) for item in inputs):
            raise Refused(400, "the body must be a JSON list of objects, the predictor's inputs")
        prediction = self._predictor.predict_batch_json(
            inputs, self._batch_size, on_error="placeholder", timeout=self._timeout
        )
        outputs = await _while_connected(request, prediction)
        parts = []
        for output in outputs:
            is_error = isinstance(output, BaseException)
            parts.append(json.dumps(_described(output) if is_error else output))
            await asyncio.sleep(0)  # others get their turn, however long the list is
        return Response(f"[{', '.join(parts)}]", media_type="application/json")

    async def health(self, request: Request) -> Response:
        workers = self._predictor.statistics().workers
        return _answer({"workers": workers}, 200 if workers else 503)

    async def metrics(self, request: Request) -> Response:
        """In the text format of Prometheus."""
        return Response(self._metrics.text(), media_type=self._metrics.content_type)

    async def _json(self, request: Request) -> Any:
        try:
            body = await asyncio.wait_for(self._body(request), self._io_timeout)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body did not come within {self._io_timeout:g} seconds")
        try:
            # A thread would not help: `json` keeps the interpreter's lock. A MB takes 20 ms.
            return json.loads(body)
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}")
        except RecursionError:
            raise Refused(400, "the body is nested too deeply")

    async def _body(self, request: Request) -> bytearray:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body:
                raise Refused(413, f"the body has more than {self._max_body} bytes")
        return body


async def _while_connected(request: Request, prediction: Awaitable[Any]) -> Any:
    """The result of the prediction, which is cancelled if the client goes."""
    task = asyncio.current_task()
    assert task is not None
    is_gone = False

    async def cancel_when_gone() -> None:
        nonlocal is_gone
        # The body has been read, so what comes next can only be this.
        if (await request.receive())["type"] == "http.disconnect":
            is_gone = True
            task.cancel()

    watcher = asyncio.ensure_future(cancel_when_gone())
    try:
        with _refusals():
            return await prediction
    except asyncio.CancelledError:
        if not is_gone:
            raise
        raise Refused(499, "the client is gone")
    finally:
        watcher.cancel()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns the errors of a prediction into answers for the client."""
    try:
        yield
    except QueueFull as error:
        raise Refused(429, f"try again later: {error}")
    except PredictorClosed:
        raise Refused(503, "the server is being shut down")
    except (asyncio.TimeoutError, WorkerTimeout):
        raise Refused(504, "the prediction takes too long")
    except WorkerError as error:
        raise Refused(500, str(error))
    except (ModelStateError, MemoryError) as error:
        raise Refused(500, _described(error)["error"])
    except (Exception, SystemExit) as error:
        if isinstance(error, asyncio.CancelledError):  # an `Exception` in Python 3.7
            raise
        raise Refused(422, f"the predictor cannot take this input: {_described(error)['error']}")


def _described(error: BaseException) -> Dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}"}


def _answer(content: Any, status: int = 200, headers: Optional[Dict[str, str]] = None) -> Response:
    # As AllenNLP writes it: a beam search's log probabilities can be -Infinity.
    return Response(json.dumps(content), status, headers, media_type="application/json")


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"Connection": "close"} if error.status == 408 else None
    return _answer({"error": str(error)}, error.status, headers)


class LimitedConnection(H11Protocol):
    """
    A connection that is closed if the client does not send the head of a request, or read the
    answer, in time. uvicorn by itself waits for both without a limit.
    """

    io_timeout = 10.0
    _timer: Optional[asyncio.TimerHandle] = None

    _is_paused = False
    """Whether answers wait for the client to read."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._update()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # may begin with the next request
        self._update()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._is_paused = True
        self._update()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_paused = False
        self._update()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _update(self) -> None:
        """Starts or stops the timer; one that runs already is not put off."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._is_paused or not is_answering:
            self._timer = self._timer or self.loop.call_later(self.io_timeout, self.transport.abort)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _allow_connections(count: int) -> None:
    """Each connection is a file, of which processes may often have only 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves an archive over HTTP.")
    parser.add_argument("archive", help="a path or URL")
    parser.add_argument("--predictor", help="the predictor's registered name")
    parser.add_argument("--num-workers", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-batch-size", type=int, default=32)
    parser.add_argument("--max-queue-delay", type=float, default=0.005, help="in seconds")
    parser.add_argument("--max-waiting", type=int, default=1000, help="inputs, before 429")
    parser.add_argument("--max-body", type=int, default=1 << 20, help="in bytes, before 413")
    parser.add_argument("--max-inputs", type=int, default=1000, help="of a request, before 413")
    parser.add_argument("--timeout", type=float, default=60.0, help="in seconds, before 504")
    parser.add_argument(
        "--io-timeout", type=float, default=10.0, help="seconds for a client to send or read"
    )
    args = parser.parse_args()
    _allow_connections(65536)
    predictor = AsyncPredictor.from_path(
        args.archive,
        args.predictor,
        num_workers=args.num_workers,
        # A worker that hangs is replaced. If workers are killed from outside, no request fails.
        settings={"executor": {"batch_timeout": args.timeout, "max_retries": 4}},
        max_batch_size=args.max_batch_size,
        max_queue_delay=args.max_queue_delay,
        max_waiting=args.max_waiting,
    )
    service = Service(
        predictor,
        args.max_body,
        args.timeout,
        args.max_batch_size,
        args.max_inputs,
        args.io_timeout,
    )
    LimitedConnection.io_timeout = args.io_timeout
    server = uvicorn.Server(
        uvicorn.Config(
            service.app(),
            host=args.host,
            port=args.port,
            http=LimitedConnection,
            ws="none",
            access_log=False,
        )
    )
    server.run()
    sys.exit(0 if server.started else 1)


if __name__ == "__main__":
    main()
