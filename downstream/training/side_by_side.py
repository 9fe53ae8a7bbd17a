"""Probes of several folds and seeds side by side: one per processor core; on a GPU in lock-step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from emopeft.downstream.training.lock_step import lock_steps
from emopeft.downstream.training.probes import Probe
from emopeft.errors import UserError

SLICE_SECONDS = 2.0  # how long a core stays with a probe before it takes the one most behind


def train_probes(
    probes: Sequence[Probe], quiet: bool | None = None, together: bool | None = None
) -> Iterator[tuple[int, float]]:
    """Train probes; yields each one's number as it is done, and how many of the seconds that its
    cores spent on it passed on the clock, where several share the time.

    A probe that the user must mend something for has an ``error``; the others go on.

    Args:
        quiet: no progress bar (None: none where there is no terminal).
        together: all in lock-step, in one thread (None: wherever the device is not a CPU).
    """
    if not probes:
        return
    threads = torch.get_num_threads()
    if together is None:
        together = probes[0].device.type != "cpu"
    # A GPU works through one stream; more threads would only get into each other's way.
    workers = 1 if together else min(len(probes), threads)
    stop, lock = threading.Event(), threading.Lock()
    total = sum(p.total * len(p.trials) for p in probes)
    bar = tqdm(total=total, desc="probes", unit="step", disable=quiet, leave=False, smoothing=0.05)
    waiting = {} if together else dict(enumerate(probes))
    finished: queue.Queue[int | BaseException] = queue.Queue()
    began = time.monotonic()

    def advance(steps: int) -> None:
        with lock:
            bar.update(steps)

    def in_turn() -> None:
        while not stop.is_set():
            with lock:
                if not waiting:
                    return
                number = min(waiting, key=lambda i: waiting[i].step / waiting[i].total)
                probe = waiting.pop(number)
            try:
                probe.run(advance, stop, SLICE_SECONDS)
            except UserError as error:
                probe.error = error
            if probe.done:
                finished.put(number)
            else:
                with lock:
                    waiting[number] = probe

    def in_lock_step() -> None:
        numbers = {id(probe): number for number, probe in enumerate(probes)}
        for stack in lock_steps(probes):
            if not stop.is_set():
                stack.run(advance, stop, lambda probe: finished.put(numbers[id(probe)]))

    def work() -> None:
        torch.set_num_threads(max(1, threads // workers))
        # Adam's second moments of settled parameters sink below the smallest normal number.
        torch.set_flush_denormal(True)
        try:
            if together:
                in_lock_step()
            else:
                in_turn()
        except BaseException as error:
            finished.put(error)

    pool = [threading.Thread(target=work, name=f"probe {i}") for i in range(workers)]
    try:
        for thread in pool:
            thread.start()
        for _ in probes:
            number = finished.get()
            if isinstance(number, BaseException):
                raise number
            busy = sum(p.busy for p in probes)
            elapsed = time.monotonic() - began
            yield number, min(1.0, elapsed / busy) if busy > 0 else 1.0
    finally:
        stop.set()
        for thread in pool:
            thread.join()
        for probe in waiting.values():  # that an interruption met between two slices
            if probe.resumed and not probe.done:
                probe.save()
        torch.set_num_threads(threads)
        bar.close()
