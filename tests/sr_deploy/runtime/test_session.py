from __future__ import annotations

import threading

import pytest

from sr_deploy.backends.base import Footprint
from sr_deploy.bundle.tuning import Tuning
from sr_deploy.errors import BackendError, InvalidInputError
from sr_deploy.runtime.session import LanePool


class FakeLane:
    def __init__(self) -> None:
        self.closed = False
        self.released = 0

    def release(self) -> None:
        self.released += 1

    def close(self) -> None:
        self.closed = True


class FakeNetwork:
    def __init__(self, lanes: int, opens: int = 100) -> None:
        self.lanes = lanes
        self.footprint = Footprint(0, 1.0)
        self.opens = opens
        self.opened: list[FakeLane] = []
        self.closed = False

    def open_lane(self) -> FakeLane:
        if len(self.opened) == self.opens:
            raise BackendError("no more lanes")
        self.opened.append(FakeLane())
        return self.opened[-1]

    def close(self) -> None:
        assert all(lane.closed for lane in self.opened)
        self.closed = True


def test_lanes_are_lent_to_one_thread_each_and_returned_after_errors() -> None:
    pool = LanePool(FakeNetwork(2), Tuning())
    with pool.lane() as first, pool.lane() as second:
        assert first is not second
    with pytest.raises(KeyError), pool.lane():
        raise KeyError
    with pool.lane(), pool.lane():
        pass


def test_a_thread_waits_for_an_idle_lane() -> None:
    pool = LanePool(FakeNetwork(1), Tuning())
    got = threading.Event()

    def borrow() -> None:
        with pool.lane():
            got.set()

    thread = threading.Thread(target=borrow)
    with pool.lane():
        thread.start()
        assert not got.wait(0.05)
    assert got.wait(10)
    thread.join(10)


def test_closing_closes_the_lanes_then_the_network_and_rejects_threads() -> None:
    network = FakeNetwork(3)
    pool = LanePool(network, Tuning())
    pool.close()
    assert network.closed
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="closed"), pool.lane():
            pass


def test_a_network_that_opens_too_few_lanes_is_closed() -> None:
    network = FakeNetwork(3, opens=1)
    with pytest.raises(BackendError):
        LanePool(network, Tuning())
    assert network.closed


def test_all_lanes_are_released_once_they_are_returned() -> None:
    network = FakeNetwork(2)
    pool = LanePool(network, Tuning())
    released = threading.Event()

    def release() -> None:
        pool.release()
        released.set()

    with pool.lane():
        thread = threading.Thread(target=release)
        thread.start()
        assert not released.wait(0.05)
    thread.join()
    assert [lane.released for lane in network.opened] == [1, 1]
