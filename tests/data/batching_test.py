import pickle
import random
from typing import Any, List, Optional

import hypothesis.strategies as st
import pytest
from hypothesis import given

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.data.batching import Batching, BucketBatching, InOrderBatching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.lazy_instances import DeferredCall


def inputs(values: List[Any]) -> List[Optional[Input]]:
    return [Input(position, position + 1, value) for position, value in enumerate(values)]


def batches(batching: Batching, values: List[Any]) -> List[Batch]:
    return [
        batch for batch in batching.batches(inputs(values), BatchKind.LINES) if batch is not None
    ]


def mixed(number: int) -> List[str]:
    generator = random.Random(number)
    return ["x" * generator.randint(1, 100) for _ in range(number)]


def test_in_order_makes_the_groups_of_predict():
    made = batches(InOrderBatching(4), list("abcdefghij"))
    assert [batch.values for batch in made] == [list("abcd"), list("efgh"), list("ij")]
    assert [batch.number for batch in made] == [0, 1, 2]


def test_groups_of_the_users_own():
    class Reversed(InOrderBatching):
        def groups(self, inputs):
            for group, ends_window in super().groups(reversed(list(inputs))):
                yield group, ends_window

    class Pairs(InOrderBatching):
        def groups(self, inputs):
            members = list(inputs)
            for start in range(0, len(members), 2):
                yield members[start : start + 2], start + 2 >= len(members)

    assert [batch.values for batch in batches(Reversed(3), list("abcd"))] == [list("dcb"), ["a"]]
    pairs = batches(Pairs(9), list("abc"))
    assert [batch.values for batch in pairs] == [["a", "b"], ["c"]]
    assert [batch.ends_window for batch in pairs] == [False, True]


@pytest.mark.parametrize("number", [0, 1, 31, 32, 64, 65, 200])
def test_a_bucket_has_every_input_once_and_within_its_window(number):
    made = batches(BucketBatching(batch_size=8, window=64), mixed(number))
    positions = [position for batch in made for position in batch.positions]
    assert sorted(positions) == list(range(number))
    assert [position // 64 for position in positions] == sorted(p // 64 for p in positions)
    assert all(len(batch.values) <= 8 for batch in made)


def test_only_the_last_batch_of_a_window_ends_it():
    made = batches(BucketBatching(batch_size=8, window=64), mixed(130))
    assert [batch.number for batch in made if batch.ends_window] == [7, 15, 16]


def test_a_batch_holds_inputs_of_like_length():
    made = batches(BucketBatching(batch_size=2, window=6), ["x" * n for n in (1, 9, 2, 8, 5, 4)])
    assert [[len(value) for value in batch.values] for batch in made] == [[9, 8], [5, 4], [2, 1]]


def test_length_may_be_counted_in_tokens():
    lines = ["one_very_long_word", "a b c", "d e", "another_very_long_word"]
    made = batches(BucketBatching(batch_size=2, window=4, length="tokens"), lines)
    assert made[0].values == ["a b c", "d e"]


@given(
    st.lists(st.integers(0, 60)),
    st.integers(1, 200),
    st.one_of(st.none(), st.integers(1, 16)),
    st.sampled_from(["characters", "tokens"]),
)
def test_batches_are_filled_up_to_max_tokens(sizes, most, batch_size, unit):
    word = "x" if unit == "characters" else "xx "
    batching = BucketBatching(batch_size, window=16, length=unit, max_tokens=most)
    made = batches(batching, [word * size for size in sizes])
    assert sorted(position for batch in made for position in batch.positions) == [
        *range(len(sizes))
    ]
    first_of_window = 0
    for batch, after in zip(made, [*made[1:], None]):
        rows, longest = len(batch.values), max(max(sizes[p] for p in batch.positions), 1)
        assert {position // 16 for position in batch.positions} == {first_of_window // 16}
        assert rows == 1 or rows * longest <= most
        assert rows <= (batch_size or 16)
        is_full = (rows + 1) * longest > most or rows == batch_size
        assert is_full or batch.ends_window  # else the next input would have fitted, too
        first_of_window += rows
        assert batch.ends_window == (first_of_window % 16 == 0 or after is None)


def test_max_tokens_with_a_row_limit_and_a_long_input():
    batching = BucketBatching(batch_size=3, window=8, max_tokens=12)
    made = batches(batching, ["x" * n for n in (50, 6, 6, 1, 1, 1, 1)])
    assert [[len(value) for value in b.values] for b in made] == [[50], [6, 6], [1, 1, 1], [1]]
    assert batching.settings()["batch_size"] == 3 and batching.settings()["max_tokens"] == 12
    assert BucketBatching(window=8, max_tokens=12).settings()["batch_size"] == 8


def test_the_length_of_what_a_reader_gives():
    calls = [DeferredCall(b"\0" * n) for n in (5, 30, 8)]
    made = batches(BucketBatching(window=4, max_tokens=16), calls)
    assert [[len(call.pickled) for call in batch.values] for batch in made] == [[30], [8, 5]]


def test_what_a_batch_is_called():
    def called(*lines):
        return Batch(0, BatchKind.LINES, ["x"] * len(lines), range(len(lines)), lines).describe()

    assert called(5) == "input line 5"
    assert called(5, 6, 8) == "input lines 5-8"  # with a blank line
    assert called(2000, 3, 700) == "3 of input lines 3-2000"


def test_the_padding_saved_is_known():
    batching = BucketBatching(batch_size=2, window=4)
    assert batching.describe() == ""
    # In order, 10 is padded to 20 twice (20 of padding); sorted, nothing is.
    batches(batching, ["x" * 10, "x" * 20, "x" * 10, "x" * 20])
    assert batching.describe() == "100% of the padding saved"
    batches(batching, ["x" * 10, "x" * 20, "x" * 11, "x" * 20])
    assert batching.describe() == "95% of the padding saved"


def test_without_padding_there_is_nothing_to_save():
    batching = BucketBatching(batch_size=2, window=4)
    batches(batching, ["x"] * 8)
    assert batching.describe() == ""


def test_a_source_that_waits_is_heard():
    groups = BucketBatching(batch_size=2, window=2).batches(
        [None, Input(0, 1, "a"), None, Input(1, 2, "b")], BatchKind.LINES
    )
    assert [group if group is None else group.values for group in groups] == [
        None,
        None,
        ["a", "b"],
    ]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"batch_size": 0}, "batching.batch_size must be at least 1"),
        ({"batch_size": 8, "window": 4}, "batching.window must be at least batching.batch_size"),
        ({"max_tokens": 0}, "batching.max_tokens must be at least 1, but it is 0"),
        ({"batch_size": 8, "window": 4, "max_tokens": 9}, "batching.window must be at least"),
        ({"length": "words"}, "batching.length must be one of characters, tokens"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(SettingsError, match=message):
        BucketBatching(**settings)


@pytest.mark.parametrize(
    "positions, known",
    [(range(5, 8), range(5, 8)), ([5, 6, 7], range(5, 8)), ([5, 7, 6], ()), ([5, 7, 8], ())],
)
def test_what_a_worker_knows_of_a_batch(positions, known):
    batch = Batch(3, BatchKind.LINES, ["a", "b", "c"], positions, [10, 11, 12])
    sent = pickle.loads(pickle.dumps(batch.to_message()))
    assert Batch.of_message(*sent) == Batch(3, BatchKind.LINES, ["a", "b", "c"], known, ())
