"""Signals that this process sends to itself; those of a real run are in contract/."""

import os
import signal
import threading

import pytest

from allennlp_parallel_predict.common.errors import Interrupted
from allennlp_parallel_predict.pipeline.signals import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_exception_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, Interrupts().handled():
        os.kill(os.getpid(), number)
        signal.pause()
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(number) == before


def test_it_waits_for_the_end_of_the_outermost_shield():
    interrupts, done = Interrupts(), []
    with pytest.raises(Interrupted), interrupts.handled(), interrupts.shielded():
        with interrupts.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with interrupts.shielded():
        pass  # it is raised only once


def test_a_second_one_ends_the_process_even_in_a_shield():
    pid = os.fork()
    if pid == 0:
        interrupts = Interrupts()
        with interrupts.handled(), interrupts.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 128 + signal.SIGINT


def test_outside_the_main_thread_nothing_is_handled():
    handlers = []

    def look():
        with Interrupts().handled():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
