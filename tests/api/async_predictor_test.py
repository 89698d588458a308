"""The asyncio interface: what callers get, and what the event loop feels of it."""

import asyncio
import json

import anyio
import pytest
from allennlp.predictors import Predictor

from allennlp_parallel_predict import AsyncPredictor, ParallelPredictor
from allennlp_parallel_predict.common.errors import (
    PredictorClosed,
    QueueFull,
    SettingsError,
    WorkerDied,
)
from tests.support.faults import numbered, predictor_of
from tests.support.pools import (
    ARCHIVE,
    WORDS,
    assert_collected,
    faulty_async,
    numbers,
    settings_of,
    ticks,
)
from tests.support.running import workers

pytestmark = pytest.mark.timeout(60)


def run(test):
    """Makes a test of a coroutine function."""

    def run_it():
        asyncio.run(test())

    run_it.__name__, run_it.__doc__ = test.__name__, test.__doc__
    return run_it


@run
async def test_single_calls_are_gathered_into_batches():
    async with faulty_async(max_batch_size=8, max_queue_delay=0.05) as predictor:
        outputs = await asyncio.gather(*map(predictor.predict_json, numbered(100)))
        assert numbers(outputs) == list(range(100))
        sizes = predictor.statistics().batch_sizes
        assert max(sizes) == 8 and sum(sizes.values()) < 20


def test_results_are_the_predictors_own():
    import allennlp_models.generation  # noqa: F401  (registers the archive's model)

    async def predict(**options):
        async with AsyncPredictor.from_path(
            ARCHIVE, num_workers=2, import_plugins=False, **options
        ) as predictor:
            singles = await asyncio.gather(*map(predictor.predict_json, WORDS))
            whole = await predictor.predict_batch_json(WORDS)
            parts = await predictor.predict_batch_json(WORDS, batch_size=1)
            streamed = [output async for output in predictor.predict_stream(WORDS)]
            return singles, whole, parts, streamed

    single = Predictor.from_path(ARCHIVE, import_plugins=False)
    alone = [single.predict_json(word) for word in WORDS]
    together = single.predict_batch_json(WORDS)
    assert asyncio.run(predict(max_batch_size=1)) == (alone, together, alone, alone)
    merged, _, _, streamed = asyncio.run(predict())
    tokens = [output["predicted_tokens"] for output in alone]
    assert [output["predicted_tokens"] for output in merged] == tokens
    assert [output["predicted_tokens"] for output in streamed] == tokens


@run
async def test_who_comes_first_is_served_first():
    finished = []

    async def call(predictor, n):
        await predictor.predict_json({"n": n, "do": "sleep", "seconds": 0.01})
        finished.append(n)

    async with faulty_async(num_workers=1, max_batch_size=4) as predictor:
        await asyncio.gather(*(call(predictor, n) for n in range(24)))
        assert finished == list(range(24))


@run
async def test_a_long_list_and_a_stream_hold_nobody_up():
    slow = [{"n": n, "do": "sleep", "seconds": 0.02} for n in range(300)]
    async with faulty_async(max_batch_size=4) as predictor:

        async def consume():
            return [output async for output in predictor.predict_stream(slow)]

        tasks = [
            asyncio.ensure_future(predictor.predict_batch_json(slow, batch_size=2)),
            asyncio.ensure_future(consume()),
        ]
        await asyncio.sleep(0.2)
        await predictor.predict_json({"n": 1})
        assert predictor.statistics().inputs < 300  # of 600
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@run
async def test_the_event_loop_never_waits():
    async with faulty_async(max_batch_size=32) as predictor:
        await predictor.predict_json({"n": 0})
        # Whoever waits for a worker now waits until it goes on, below, after the ticks.
        for worker in workers():
            worker.suspend()
        calls = asyncio.gather(*(predictor.predict_json({"n": n, "pad": 2000}) for n in range(64)))
        busy = await ticks(500)
        assert not calls.done()
        for worker in workers():
            worker.resume()
        assert numbers(await calls) == list(range(64))
        # Nor does it work for long: a tick in a thousand may, as when garbage is collected.
        assert busy[-1] < 0.5 and busy[len(busy) * 99 // 100] < 0.02


@run
async def test_results_come_to_the_event_loop_in_small_pieces():
    async with faulty_async(max_batch_size=32) as predictor:

        async def call(n):
            for _ in range(20):
                await predictor.predict_json({"n": n, "pad": 2000})

        calls = asyncio.gather(*map(call, range(64)))
        busy = []
        while not calls.done():
            busy += await ticks(10)
        assert sorted(busy)[len(busy) * 99 // 100] < 0.02


class TestCancelling:
    @staticmethod
    @pytest.mark.parametrize("how", ["cancel", "timeout"])
    def test_who_has_not_started_costs_nothing(how):
        async def test():
            async with faulty_async(num_workers=1, max_batch_size=2) as predictor:
                await predictor.predict_json({"n": 0})
                busy = {"n": 1, "do": "sleep", "seconds": 0.5}
                running = asyncio.ensure_future(predictor.predict_json(busy))
                await asyncio.sleep(0.1)
                waiting = [asyncio.ensure_future(predictor.predict_json({"n": 9})) for _ in "ab"]
                doomed = {"n": 2, "do": "kill"}
                if how == "cancel":
                    call = asyncio.ensure_future(predictor.predict_json(doomed))
                    await asyncio.sleep(0.05)
                    assert predictor.statistics().waiting == 3
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                else:
                    with pytest.raises(asyncio.TimeoutError):
                        await predictor.predict_json(doomed, timeout=0.05)
                assert predictor.statistics().waiting == 2
                assert numbers(await asyncio.gather(running, *waiting)) == [1, 9, 9]
                assert predictor.statistics().inputs == 4
                assert predictor.statistics().restarts == 0

        asyncio.run(test())

    def test_who_has_started_is_not_tried_again(self):
        async def test():
            async with faulty_async(num_workers=1) as predictor:
                call = asyncio.ensure_future(predictor.predict_json({"n": 0, "do": "hang"}))
                while not predictor.statistics().in_work:
                    await asyncio.sleep(0.01)
                call.cancel()
                await asyncio.sleep(0.2)
                workers()[0].kill()
                assert (await predictor.predict_json({"n": 1}))["n"] == 1
                assert predictor.statistics().restarts == 1

        asyncio.run(test())

    def test_who_has_started_is_left_out_when_its_neighbours_are_tried_again(self):
        async def test():
            async with faulty_async(
                num_workers=1, max_batch_size=3, max_queue_delay=0.1
            ) as predictor:
                inputs = numbered(3, {1: "hang"})
                calls = [asyncio.ensure_future(predictor.predict_json(i)) for i in inputs]
                while not predictor.statistics().in_work:
                    await asyncio.sleep(0.01)
                calls[1].cancel()
                await asyncio.sleep(0.2)
                workers()[0].kill()
                outputs = await asyncio.gather(*calls, return_exceptions=True)
                assert isinstance(outputs.pop(1), asyncio.CancelledError)
                assert numbers(outputs) == [0, 2]
                assert predictor.statistics().restarts == 1

        asyncio.run(test())

    def test_who_has_started_does_not_disturb_its_neighbours(self):
        async def test():
            async with faulty_async(
                num_workers=1, max_batch_size=3, max_queue_delay=0.1
            ) as predictor:
                inputs = numbered(3, {0: {"do": "sleep", "seconds": 0.4}})
                calls = [asyncio.ensure_future(predictor.predict_json(i)) for i in inputs]
                await asyncio.sleep(0.2)
                calls[1].cancel()
                outputs = await asyncio.gather(*calls, return_exceptions=True)
                assert isinstance(outputs.pop(1), asyncio.CancelledError)
                assert numbers(outputs) == [0, 2]

        asyncio.run(test())


class TestErrors:
    def test_each_has_its_own(self):
        async def test():
            async with faulty_async(max_batch_size=8, max_queue_delay=0.05) as predictor:
                inputs = numbered(8, {3: "raise", 5: "kill"})
                calls = map(predictor.predict_json, inputs)
                outputs = await asyncio.gather(*calls, return_exceptions=True)
                assert isinstance(outputs.pop(5), WorkerDied)
                assert isinstance(outputs.pop(3), ValueError)
                assert numbers(outputs) == [0, 1, 2, 4, 6, 7]
                with pytest.raises(ValueError, match="cannot take 3"):
                    await predictor.predict_batch_json(numbered(5, {3: "raise"}), batch_size=2)
                with pytest.raises(SettingsError):
                    await predictor.predict_batch_json([], on_error="hope")

        asyncio.run(test())

    def test_a_queue_that_is_full(self):
        async def test():
            async with faulty_async(num_workers=1, max_batch_size=1, max_waiting=5) as predictor:
                slow = [{"n": n, "do": "sleep", "seconds": 0.1} for n in range(20)]
                calls = map(predictor.predict_json, slow)
                outputs = await asyncio.gather(*calls, return_exceptions=True)
                refused = [output for output in outputs if isinstance(output, QueueFull)]
                assert 14 <= len(refused) <= 15
                assert (await predictor.predict_json({"n": 5}))["n"] == 5

        asyncio.run(test())

    def test_streams_and_long_lists_wait_instead(self):
        async def test():
            async with faulty_async(max_batch_size=8, max_waiting=5) as predictor:
                stream = predictor.predict_stream(numbered(200))
                assert [output["n"] async for output in stream] == list(range(200))
                outputs = await predictor.predict_batch_json(numbered(100), batch_size=8)
                assert numbers(outputs) == list(range(100))
                assert numbers(await predictor.predict_batch_json(numbered(50))) == list(range(50))

        asyncio.run(test())

    def test_a_long_list_that_is_refused_is_refused_as_a_whole(self):
        async def test():
            async with faulty_async(num_workers=1, max_batch_size=1, max_waiting=5) as predictor:
                slow = [{"n": n, "do": "sleep", "seconds": 0.2} for n in range(6)]
                calls = [asyncio.ensure_future(predictor.predict_json(slow[0]))]
                await asyncio.sleep(0.1)  # a worker has it
                calls += [asyncio.ensure_future(predictor.predict_json(one)) for one in slow[1:]]
                await asyncio.sleep(0.05)
                with pytest.raises(QueueFull):
                    await predictor.predict_batch_json(numbered(20), batch_size=2)
                await asyncio.gather(*calls)
                assert predictor.statistics().inputs == 6

        asyncio.run(test())

    def test_an_archive_that_is_not_there(self):
        async def test():
            with pytest.raises(FileNotFoundError):
                async with AsyncPredictor.from_path("nowhere", import_plugins=False):
                    pass
            with pytest.raises(SettingsError, match="max_batch_size"):
                AsyncPredictor.from_path("nowhere", max_batch_size=0)

        asyncio.run(test())

    def test_killed_workers_are_replaced_and_nobody_notices(self):
        async def test():
            async with faulty_async() as predictor:

                async def call(n):
                    for _ in range(20):
                        output = await predictor.predict_json({"n": n, "do": "sleep", "seconds": 0})
                        assert output["n"] == n
                        await asyncio.sleep(0.01)

                calls = asyncio.gather(*map(call, range(16)))
                for _ in range(3):
                    await asyncio.sleep(0.1)
                    workers()[0].kill()
                await calls

        asyncio.run(test())


class TestLoops:
    def test_several_one_after_another(self):
        predictor = faulty_async()
        for n in range(3):
            assert asyncio.run(predictor.predict_json({"n": n}))["n"] == n
        asyncio.run(predictor.close())

    @pytest.mark.parametrize("use_uvloop", [False, True])
    def test_anyio_and_uvloop(self, use_uvloop):
        if use_uvloop:
            pytest.importorskip("uvloop")

        async def test():
            async with faulty_async() as predictor:
                outputs = await asyncio.gather(*map(predictor.predict_json, numbered(50)))
                assert numbers(outputs) == list(range(50))
                stream = predictor.predict_stream(iter(numbered(50)))
                assert [output["n"] async for output in stream] == list(range(50))
                done = []

                async def call(n):
                    done.append((await predictor.predict_json({"n": n}))["n"])

                async with anyio.create_task_group() as group:
                    for n in range(20):
                        group.start_soon(call, n)
                assert sorted(done) == list(range(20))
                with anyio.move_on_after(0.1) as scope:
                    await predictor.predict_json({"n": 0, "do": "sleep", "seconds": 1})
                assert scope.cancel_called

        anyio.run(test, backend="asyncio", backend_options={"use_uvloop": use_uvloop})

    @staticmethod
    @run
    async def test_a_running_one_as_in_a_notebook():
        """Cells run inside a loop: `start` and `close` there, and the plain interface works too."""
        predictor = faulty_async()
        await predictor.start()
        assert (await predictor.predict_json({"n": 1}))["n"] == 1
        await predictor.close()
        with ParallelPredictor(lambda: predictor_of(), settings_of()) as plain:
            assert numbers(plain.predict_stream(numbered(5))) == [0, 1, 2, 3, 4]


@run
async def test_closing_finishes_what_is_under_way():
    async with faulty_async(num_workers=1, max_batch_size=2, max_queue_delay=1000) as predictor:
        slow = [{"n": n, "do": "sleep", "seconds": 0.1} for n in range(7)]
        calls = [asyncio.ensure_future(predictor.predict_json(inputs)) for inputs in slow]
        await asyncio.sleep(0.05)
    assert numbers(await asyncio.gather(*calls)) == list(range(7))
    with pytest.raises(PredictorClosed):
        await predictor.predict_json({"n": 1})


def test_letting_go_of_it_is_enough():
    async def use():
        predictor = faulty_async()
        assert (await predictor.predict_json({"n": 1}))["n"] == 1

    asyncio.run(use())
    assert_collected()


@run
async def test_settings_from_params():
    import allennlp_models.generation  # noqa: F401  (registers the archive's model)

    params = {"archive_path": str(ARCHIVE), "num_workers": 1, "max_batch_size": 4}
    async with AsyncPredictor.from_params({**params, "import_plugins": False}) as predictor:
        await asyncio.gather(*map(predictor.predict_json, WORDS[:8]))
        assert json.dumps(predictor.statistics().batch_sizes) == '{"4": 2}'
