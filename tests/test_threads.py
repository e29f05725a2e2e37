"""The number of threads follows what they cost, on machines that are made up: a clock of their own tells the times."""

from __future__ import annotations

import pytest
import torch

from zeuxis.threads import Clock, Threads


class Machine(Clock):
    """A machine of some cores, with other processes, on which a unit of work takes a second of one core.

    Threads that lack a core are waited for: beside other processes every thread more than there is room for costs
    as much as the rest gain, and then some.
    """

    def __init__(self, cores: int = 2, others: int = 0, serial: float = 0.2) -> None:
        self.cores, self.others, self.serial = cores, others, serial
        self.time = self.cpu = self.rest = 0.0
        self.threads = cores

    def wall(self) -> float:
        return self.time

    def used(self) -> float:
        return self.cpu

    def idle(self) -> float:
        return self.rest

    def cost(self, number: int) -> float:
        """Seconds of a unit on so many threads."""
        crowded = max(number + self.others - self.cores, 0)
        waiting = 4.0 * crowded if number > 1 else 0.0
        slowed = max((1 + self.others) / self.cores, 1.0)
        return 0.02 * (self.serial + (1 - self.serial) / number + waiting) * slowed

    def pass_by(self, seconds: float, working: int) -> None:
        granted = min(working, self.cores * working / max(working + self.others, 1))
        self.time += seconds
        self.cpu += granted * seconds
        self.rest += max(self.cores - self.others - working, 0) * seconds

    def work(self, chooser: Threads, seconds: float) -> float:
        """Works for so long; returns the share of the best rate that was reached."""
        end, units = self.time + seconds, 0
        while self.time < end:
            with chooser.unit("work"):
                self.pass_by(self.cost(self.threads), self.threads)
            units += 1
        return units * min(self.cost(number) for number in range(1, self.cores + 1)) / seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(torch, "get_num_threads", lambda: made.threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: setattr(made, "threads", number))
    return made


def started(machine: Machine) -> Threads:
    """A chooser on a program that has spent two seconds on imports."""
    chooser = Threads(machine)
    machine.pass_by(2.0, 1)
    return chooser


@pytest.mark.parametrize(("others", "best"), [(0, 2), (1, 1), (2, 1), (4, 1)])
def test_as_many_threads_as_pay(machine: Machine, others: int, best: int) -> None:
    machine.others = others
    chooser = started(machine)
    share = machine.work(chooser, 120)
    assert share > (0.97 if others == 0 else 0.9)
    assert chooser.number == best


def test_the_choice_follows_the_machine(machine: Machine) -> None:
    chooser = started(machine)
    machine.work(chooser, 20)
    assert chooser.number == 2
    machine.others = 2
    machine.work(chooser, 20)
    assert chooser.number == 1
    machine.others = 0
    machine.work(chooser, 20)
    assert chooser.number == 2


def test_one_thread_where_more_bring_nothing(machine: Machine) -> None:
    machine.cost = lambda number: 0.02 * number  # type: ignore[method-assign]
    chooser = started(machine)
    assert machine.work(chooser, 600) > 0.75
    assert chooser.number == 1


def test_many_cores_are_shared(machine: Machine) -> None:
    machine.cores = machine.threads = 16
    machine.others = 4
    chooser = started(machine)
    machine.work(chooser, 120)
    assert chooser.number == 12


def test_a_fixed_number_stays(machine: Machine) -> None:
    machine.others = 3
    chooser = started(machine)
    with chooser.fixed(2):
        machine.work(chooser, 60)
        assert machine.threads == 2
        with chooser.fixed(0):
            assert machine.threads == 2
    assert machine.threads == chooser.number == 1


def test_work_of_different_kinds_is_not_compared(machine: Machine) -> None:
    chooser = started(machine)
    for _ in range(200):
        for kind, seconds in (("long", 0.4), ("short", 0.01)):
            with chooser.unit(kind):
                machine.pass_by(seconds, machine.threads)
    assert machine.threads == 2


def test_a_clock_that_stands_still_or_runs_backwards_changes_nothing(machine: Machine) -> None:
    chooser = started(machine)
    for seconds in (0.0, -5.0, 0.0, 3.0, -1.0) * 20:
        with chooser.unit("work"):
            machine.time += seconds
    assert chooser.number in (1, 2)
