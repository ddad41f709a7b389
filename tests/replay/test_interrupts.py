"""Ctrl-C is raised where it is asked for, and nowhere else."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from counterplay.replay.interrupts import interrupts_noted


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_until_it_is_asked_for() -> None:
    reached = []

    def work() -> None:
        with interrupts_noted() as check:
            press()
            reached.append("after it was pressed")
            check()
            reached.append("after it was asked for")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["after it was pressed"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_nobody_asked_for_comes_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_noted():
        press()


def test_an_error_comes_before_ctrl_c() -> None:
    def work() -> None:
        with interrupts_noted():
            press()
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_and_other_threads_are_left_alone() -> None:
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        with interrupts_noted() as check:
            press()
            check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]

    def elsewhere() -> None:
        with interrupts_noted() as check:
            check()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
