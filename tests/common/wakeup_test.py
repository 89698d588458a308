"""A wait that another thread ends."""

import select
import threading

from allennlp_parallel_predict.common.wakeup import WakeUp


def is_set(wakeup):
    return bool(select.select([wakeup], [], [], 0)[0])


def test_it_ends_a_wait():
    wakeup = WakeUp()
    thread = threading.Thread(target=wakeup.set)
    thread.start()
    assert select.select([wakeup], [], [], 30)[0] == [wakeup]
    thread.join()
    wakeup.clear()
    assert not is_set(wakeup)
    wakeup.close()


def test_it_may_be_set_often_and_after_the_end():
    wakeup = WakeUp()
    for _ in range(5_000):
        wakeup.set()
    while is_set(wakeup):
        wakeup.clear()
    wakeup.clear()
    wakeup.close()
    wakeup.set()
