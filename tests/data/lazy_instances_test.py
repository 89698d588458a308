import pickle
from typing import Iterable, Optional

import pytest
from allennlp.data import DatasetReader, Instance
from allennlp.data.fields import LabelField, MetadataField

from allennlp_parallel_predict.data.lazy_instances import (
    LazyInstance,
    can_be_deferred,
    deferring,
)


class PlainReader(DatasetReader):
    calls = 0

    def _read(self, file_path) -> Iterable[Instance]:
        words = []
        for number in range(4):
            words.append(str(number))
            yield self.text_to_instance(words, label=number)

    def text_to_instance(self, words, label=None) -> Instance:  # type: ignore
        type(self).calls += 1
        fields = {"words": MetadataField(list(words))}
        if label is not None:
            fields["label"] = LabelField(str(label))
            return Instance(fields)
        else:
            return Instance(fields)


class LookingReader(PlainReader):
    """Looks into every instance, as some readers do."""

    def _read(self, file_path) -> Iterable[Instance]:
        for instance in super()._read(file_path):
            if "label" in instance:
                instance.add_field("length", MetadataField(len(instance["words"].metadata)))
                yield instance


class OptionalReader(PlainReader):
    def text_to_instance(self, words, label=None) -> Optional[Instance]:  # type: ignore
        return None


class SilentlyOptionalReader(PlainReader):
    def text_to_instance(self, words, label=None) -> Instance:  # type: ignore
        if label == 1:
            return None
        return Instance({})


class EndlessReader(PlainReader):
    def text_to_instance(self, words, label=None) -> Instance:  # type: ignore
        if label == 1:
            return Instance({})


class HelpedReader(PlainReader):
    def text_to_instance(self, words, label=None) -> Instance:  # type: ignore
        return self.helper()


class CallingReader(PlainReader):
    def text_to_instance(self, words, label=None) -> Instance:  # type: ignore
        return super().text_to_instance([word.lower() for word in words], label)


class StaticReader(PlainReader):
    @staticmethod
    def text_to_instance(words, label=None) -> Instance:  # type: ignore
        return Instance({})


class CallingOptionalReader(OptionalReader):
    def text_to_instance(self, words, label=None) -> Instance:  # type: ignore
        return super().text_to_instance(words, label)


def shown(instance):
    return {name: str(field) for name, field in instance.fields.items()}


def read(reader):
    with deferring(reader):
        return list(reader._read("x"))


def test_calls_are_made_later_with_what_the_arguments_were():
    PlainReader.calls = 0
    expected = [shown(instance) for instance in PlainReader()._read("x")]
    assert PlainReader.calls == 4
    deferred = read(PlainReader())
    assert PlainReader.calls == 4
    travelled = [pickle.loads(pickle.dumps(instance.travelling())) for instance in deferred]
    assert [shown(call.make(PlainReader())) for call in travelled] == expected
    assert PlainReader.calls == 8


def test_a_reader_that_looks_into_its_instances_gets_them():
    expected = [shown(instance) for instance in LookingReader()._read("x")]
    assert [shown(instance.travelling()) for instance in read(LookingReader())] == expected


def test_the_reader_is_as_before_afterwards():
    reader = PlainReader()
    read(reader)
    assert "text_to_instance" not in vars(reader)
    assert not isinstance(next(iter(reader._read("x"))), LazyInstance)


@pytest.mark.parametrize(
    "reader_type, expected",
    [
        (PlainReader, True),
        (LookingReader, True),
        (OptionalReader, False),
        (SilentlyOptionalReader, False),
        (EndlessReader, False),
        (HelpedReader, False),
        (CallingReader, True),
        (StaticReader, False),
        (CallingOptionalReader, False),
        (DatasetReader, False),
    ],
)
def test_readers_that_may_return_none_are_left_alone(reader_type, expected):
    assert can_be_deferred(reader_type()) is expected


def test_a_call_that_gives_no_instance_says_what_to_do():
    call = read(PlainReader())[0].travelling()
    with pytest.raises(TypeError, match="Optional"):
        call.make(OptionalReader())
