"""Stages at the same time: order is kept, errors arrive, threads end."""

from __future__ import annotations

import threading

import pytest

from sr_deploy.core.overlap import ahead, behind


def test_order_is_kept_and_stages_run_at_the_same_time():
    read, both = [], threading.Event()

    def items():
        for number in range(20):
            read.append(number)
            yield number

    used = []

    def use(number):
        used.append(number)
        if len(read) > len(used):
            both.set()

    with ahead(items()) as source, behind(use) as hand:
        for number in source:
            hand(number)
    assert used == list(range(20)) and both.is_set()


def test_no_more_than_two_wait():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    with ahead(items()) as source:
        assert next(source) == 0
    assert len(made) <= 5
    assert threading.active_count() == threading.active_count()


def test_what_a_stage_raises_arrives_where_its_item_is_asked_for():
    closed = []

    def items():
        try:
            yield 1
            raise KeyError("second")
        finally:
            closed.append(True)

    with pytest.raises(KeyError), ahead(items()) as source:
        assert next(source) == 1
        next(source)
    assert closed

    def use(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="7"), behind(use) as hand:
        for _ in range(50):
            hand(7)
    with pytest.raises(ValueError, match="8"), behind(use) as hand:
        hand(8)


def test_an_error_of_the_block_ends_both():
    before = threading.active_count()
    used = []
    with pytest.raises(RuntimeError), ahead(iter(range(9))) as source, behind(used.append) as hand:
        hand(next(source))
        raise RuntimeError
    assert threading.active_count() == before
