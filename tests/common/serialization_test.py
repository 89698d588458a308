"""Messages as bytes."""

import threading

import pytest

from allennlp_parallel_predict.common.messages import BatchResult
from allennlp_parallel_predict.common.serialization import (
    HEADER_SIZE,
    MAX_SIZE,
    dump_result,
    dumps,
    load_result,
    pack_header,
    unpack_header,
)


@pytest.mark.parametrize("size", [0, 1, 1 << 18, MAX_SIZE])
def test_a_header_says_how_long_its_message_is(size):
    header = pack_header(size)
    assert len(header) == HEADER_SIZE and unpack_header(b"xy" + header, 2) == size


@pytest.mark.parametrize("data", [b"x" * HEADER_SIZE, pack_header(MAX_SIZE + 1)])
def test_what_is_no_header_is_found_out(data):
    with pytest.raises(ValueError, match="begins no message"):
        unpack_header(data)


def test_functions_of_a_script_travel_by_value():
    import pickle

    factor = 3
    assert pickle.loads(dumps(lambda number: factor * number))(7) == 21


def test_a_result_that_cannot_be_sent_is_a_failure_of_its_batch():
    assert load_result(dump_result(BatchResult(7, ["text"]))) == BatchResult(7, ["text"])
    failed = load_result(dump_result(BatchResult(7, [threading.Lock()])))
    assert failed.number == 7 and failed.outputs == []
    assert "pickle" in failed.fatal.error.message
