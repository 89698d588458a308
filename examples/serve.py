"""
Serves an archive over HTTP.

    pip install "allennlp-parallel-predict[examples]"
    python examples/serve.py examples/g2p/model.tar.gz --num-workers 2 --port 8000

    curl -d '{"source": "hello"}' http://127.0.0.1:8000/predict
    curl -d '[{"source": "hello"}, {"source": "world"}]' http://127.0.0.1:8000/predict/batch
    curl http://127.0.0.1:8000/health
    curl http://127.0.0.1:8000/metrics

Requests that come at the same time are predicted together. What cannot be served is refused at
once: a body that is too large (413), input that is no JSON (400) or that the predictor cannot take
(422), more waiting inputs than `--max-waiting` (429). SIGTERM or Ctrl-C ends the server after the
requests that are under way.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from typing import Any, AsyncIterator, Dict

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from allennlp_parallel_predict import (
    AsyncPredictor,
    ModelStateError,
    PredictorClosed,
    QueueFull,
    WorkerError,
    WorkerTimeout,
)


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
        The seconds that a request may take.
    batch_size : `int`
        The inputs of `/predict/batch` that a worker gets at once.
    """

    def __init__(
        self, predictor: AsyncPredictor, max_body: int, timeout: float, batch_size: int
    ) -> None:
        self._predictor = predictor
        self._max_body = max_body
        self._timeout = timeout
        self._batch_size = batch_size

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
        with _refusals():
            return _answer(await self._predictor.predict_json(inputs, self._timeout))

    async def predict_batch(self, request: Request) -> Response:
        """Answers with a list: an output for each input, or `{"error": ...}` in its place."""
        inputs = await self._json(request)
        if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
            raise Refused(400, "the body must be a JSON list of objects, the predictor's inputs")
        with _refusals():
            outputs = await self._predictor.predict_batch_json(
                inputs, self._batch_size, on_error="placeholder", timeout=self._timeout
            )
        return _answer([_described(o) if isinstance(o, BaseException) else o for o in outputs])

    async def health(self, request: Request) -> Response:
        workers = self._predictor.statistics().workers
        return _answer({"workers": workers}, 200 if workers else 503)

    async def metrics(self, request: Request) -> Response:
        """In the text format of Prometheus."""
        now = self._predictor.statistics()
        lines = [
            f"predict_workers {now.workers}",
            f"predict_worker_restarts_total {now.restarts}",
            f"predict_queue_length {now.waiting}",
            f"predict_batches_in_work {now.in_work}",
            f"predict_inputs_total {now.inputs}",
            f"predict_failures_total {now.failures}",
        ]
        for size, count in sorted(now.batch_sizes.items()):
            lines.append(f'predict_batches_total{{size="{size}"}} {count}')
        for name, seconds in now.latencies.items():
            lines.append(f'predict_latency_seconds{{quantile="0.{name[1:]}"}} {seconds:.6f}')
        return PlainTextResponse("\n".join(lines) + "\n")

    async def _json(self, request: Request) -> Any:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body:
                raise Refused(413, f"the body has more than {self._max_body} bytes")
        try:
            return json.loads(body)
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}")
        except RecursionError:
            raise Refused(400, "the body is nested too deeply")


@contextlib.contextmanager
def _refusals() -> Any:
    """Turns what may go wrong with a prediction into what the client is told."""
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
        raise Refused(422, f"the predictor cannot take this input: {_described(error)['error']}")


def _described(error: BaseException) -> Dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}"}


def _answer(content: Any, status: int = 200) -> Response:
    # As AllenNLP writes it: a beam search's log probabilities can be -Infinity.
    return Response(json.dumps(content), status, media_type="application/json")


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer({"error": str(error)}, error.status)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves an archive over HTTP.")
    parser.add_argument("archive", help="a path or URL")
    parser.add_argument("--predictor", help="the predictor's registered name")
    parser.add_argument("--num-workers", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-batch-size", type=int, default=32)
    parser.add_argument("--max-latency", type=float, default=0.005, help="in seconds")
    parser.add_argument("--max-waiting", type=int, default=1000, help="inputs, before 429")
    parser.add_argument("--max-body", type=int, default=1 << 20, help="in bytes, before 413")
    parser.add_argument("--timeout", type=float, default=60.0, help="in seconds, before 504")
    args = parser.parse_args()
    predictor = AsyncPredictor.from_path(
        args.archive,
        args.predictor,
        num_workers=args.num_workers,
        settings={"executor.batch_timeout": args.timeout},  # a worker that hangs is replaced
        max_batch_size=args.max_batch_size,
        max_queue_delay=args.max_latency,
        max_waiting=args.max_waiting,
    )
    service = Service(predictor, args.max_body, args.timeout, args.max_batch_size)
    server = uvicorn.Server(
        uvicorn.Config(service.app(), host=args.host, port=args.port, access_log=False)
    )
    server.run()
    sys.exit(0 if server.started else 1)


if __name__ == "__main__":
    main()
