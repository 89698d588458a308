"""Streams of batches, without a pool: the test says when a batch is finished."""

from concurrent.futures import Future

import pytest

from allennlp_parallel_predict.api.stream import Stream, only_output, treat_errors, until_error
from allennlp_parallel_predict.common.errors import PredictionError
from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError


class Requests:
    """Takes requests, as a dispatcher does."""

    def __init__(self):
        self.taken, self.abandoned = [], []

    def submit(self, request):
        self.taken.append((request, Future()))
        return self.taken[-1][1]

    def abandon(self, request):
        self.abandoned.append(request)


def stream_of(count, **options):
    requests, done = Requests(), []
    stream = Stream(requests, done.append, max_in_flight=3, max_ahead=4, **options)
    for number in range(count):
        stream.submit(Batch(number, BatchKind.JSON, [b""], [number], [number + 1]))
    return stream, [future for _, future in requests.taken], requests, done


def finish(stream, futures, number):
    futures[number].set_result([number])
    return list(stream.finish(futures[number]))


def test_outputs_come_in_order():
    stream, futures, _, done = stream_of(3)
    assert not stream.has_room()
    assert finish(stream, futures, 1) == [] and stream.has_room()
    assert finish(stream, futures, 0) == [[0], [1]]
    assert finish(stream, futures, 2) == [[2]]
    assert done == [futures[1], futures[0], futures[2]]


def test_or_as_they_are_finished():
    stream, futures, _, _ = stream_of(3, ordered=False)
    assert [finish(stream, futures, n) for n in (2, 0, 1)] == [[[2]], [[0]], [[1]]]


def test_nobody_runs_far_ahead_of_the_oldest():
    stream, futures, _, _ = stream_of(6)
    for number in range(1, 6):
        assert finish(stream, futures, number) == []
    assert len(stream.in_flight) == 1 and not stream.has_room()
    assert len(finish(stream, futures, 0)) == 6 and stream.has_room()


def test_only_the_first_may_be_refused_and_what_is_left_is_abandoned():
    stream, futures, requests, _ = stream_of(3, is_limited=True, merge=True)
    assert [request.is_limited for request, _ in requests.taken] == [True, False, False]
    finish(stream, futures, 1)
    stream.cancel()
    assert requests.abandoned == [requests.taken[n][0] for n in (0, 2)]
    assert stream.in_flight == {}


def test_errors_among_outputs():
    error = ValueError("x")
    outputs = [1, error, 2]
    assert list(treat_errors(outputs, OnError.SKIP)) == [1, 2]
    assert list(treat_errors(outputs, OnError.PLACEHOLDER)) == outputs
    with pytest.raises(ValueError):
        list(treat_errors(outputs, OnError.RAISE))
    with pytest.raises(ValueError):
        only_output([error])
    with pytest.raises(PredictionError, match="no output"):
        only_output([])
    assert only_output([{"n": 1}]) == {"n": 1}


def test_an_error_of_the_source_comes_after_its_items():
    def broken():
        yield 1
        raise OSError("gone")

    errors = []
    assert list(until_error(broken(), errors)) == [1]
    assert isinstance(errors[0], OSError)
