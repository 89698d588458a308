"""The streams of the asyncio interface."""

import asyncio
import itertools
import threading

import pytest

from tests.support.faults import numbered
from tests.support.pools import faulty_async, ticks

pytestmark = pytest.mark.timeout(60)


async def async_numbers(count):
    for n in range(count):
        await asyncio.sleep(0)
        yield {"n": n}


class TestAStream:
    @pytest.mark.parametrize(
        "source",
        [list, iter, lambda items: async_numbers(len(items))],
        ids=["list", "iter", "async"],
    )
    @pytest.mark.parametrize("ordered", [True, False])
    def test_sources_and_orders(self, source, ordered):
        async def test():
            async with faulty_async(max_batch_size=8) as predictor:
                stream = predictor.predict_stream(source(numbered(300)), ordered)
                got = [output["n"] async for output in stream]
                assert (got if ordered else sorted(got)) == list(range(300))

        asyncio.run(test())

    def test_an_endless_one_is_read_as_it_is_consumed(self):
        taken = 0

        def endless():
            nonlocal taken
            for taken in itertools.count():
                yield {"n": taken}

        async def test():
            async with faulty_async(max_batch_size=4) as predictor:
                given = 0
                async for output in predictor.predict_stream(endless()):
                    assert output["n"] == given
                    given += 1
                    if given == 200:
                        await asyncio.sleep(0.3)
                        break
                read = taken
                assert read < 300
                await asyncio.sleep(0.2)
                assert taken == read
                assert (await predictor.predict_json({"n": 1}))["n"] == 1
                assert predictor.statistics().waiting == 0

        asyncio.run(test())

    def test_a_plain_iterable_that_waits_does_not_stop_the_loop(self):
        wanted = threading.Semaphore(0)

        def slow():
            for n in range(4):
                wanted.acquire()
                yield {"n": n}

        async def test():
            async with faulty_async() as predictor:
                stream = predictor.predict_stream(slow())
                for n in range(4):
                    output = asyncio.ensure_future(stream.__anext__())
                    await ticks(50)  # the loop goes on, although there is no input
                    assert not output.done()
                    wanted.release()
                    assert (await output)["n"] == n  # without the one after it

        asyncio.run(test())

    @pytest.mark.parametrize("is_async", [True, False])
    def test_the_sources_error_comes_after_what_it_gave(self, is_async):
        def broken():
            yield from numbered(5)
            raise OSError("the disk is gone")

        async def broken_async():
            for item in broken():
                yield item

        async def test():
            given = []
            async with faulty_async() as predictor:
                with pytest.raises(OSError):
                    source = broken_async() if is_async else broken()
                    async for output in predictor.predict_stream(source):
                        given.append(output["n"])
            assert given == [0, 1, 2, 3, 4]

        asyncio.run(test())

    def test_on_error(self):
        async def test():
            inputs = numbered(6, {2: "raise"})
            async with faulty_async() as predictor:
                skipping = predictor.predict_stream(inputs, on_error="skip")
                assert [output["n"] async for output in skipping] == [0, 1, 3, 4, 5]
                with pytest.raises(ValueError):
                    async for _ in predictor.predict_stream(inputs):
                        pass

        asyncio.run(test())
