"""Probes in lock-step: all folds, seeds and learning rates as one computation, for a GPU.

Every probe keeps its own order of batches, schedule, early stopping, evaluations and progress
file; only the steps are taken together (models/grouped_heads.py). Where a probe's batch is smaller
than the others', as the last of an epoch is, rows of weight 0 fill it up. A learning rate that
stopped stays where it is, with rate 0; a probe that is done leaves, and with it its rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from emopeft.downstream.models.grouped_heads import GroupedHeads
from emopeft.downstream.training.gathering import gather
from emopeft.downstream.training.probes import BLOCK, SAVE_SECONDS, Probe
from emopeft.downstream.training.selection import shares
from emopeft.errors import UserError

STACK_BYTES = 1 << 30  # of parameters at once; gradients and Adam take four times as much beside


def lock_steps(probes: Sequence[Probe], limit: int = STACK_BYTES) -> Iterator[LockStep]:
    """Probes in order, as many at a time as the limit on their heads' bytes allows; those on a sum
    of states and those on one state apart."""
    for _, alike in itertools.groupby(probes, lambda probe: probe.means.shape):
        some = list(alike)
        per_stack = max(1, limit // max(probe.stack.rows.nbytes for probe in some))
        for first in range(0, len(some), per_stack):
            yield LockStep(some[first : first + per_stack])


@dataclasses.dataclass
class Epoch:
    """The batches of a probe's epoch, all of one size; on its device.

    Attributes:
        indices: of the utterances (steps, batch).
        targets: (steps, batch, targets).
        shares: their weights in the loss (steps, batch), 0 where a smaller batch is filled up.
    """

    indices: Tensor
    targets: Tensor
    shares: Tensor

    @classmethod
    def of(cls, probe: Probe, size: int) -> Epoch:
        """The epoch of the probe's step, batches filled up to ``size``.

        Raises UserError where a whole batch weighs nothing.
        """
        order = probe.order()
        # A batch is filled up with its own first utterance: of weight 0, but with values of the
        # kind that the task knows.
        place = torch.arange(size).expand(probe.per_epoch, -1)
        start = torch.arange(probe.per_epoch)[:, None] * probe.keys.batch_size
        in_batch = (place < probe.keys.batch_size) & (start + place < len(order))
        chosen = order[torch.where(in_batch, start + place, start)]
        device = probe.device
        return cls(
            probe.rows()[chosen].to(device),
            probe.targets[chosen.to(device)],
            shares(probe.weights[chosen] * in_batch).to(device),
        )


class LockStep:
    """Probes on the same means, with the same keys and as many learning rates each.

    A probe that the user must mend something for has an ``error``; the others go on.
    """

    def __init__(self, probes: Sequence[Probe]):
        self.probes = probes
        self.going: list[Probe] = []  # those in the stack, in the order of its groups
        self.epochs: list[Epoch | None] = []  # of those
        like = probes[0]
        assert all(
            p.means.data_ptr() == like.means.data_ptr() and len(p.trials) == len(like.trials)
            for p in probes
        )
        self.means, self.device = like.means, like.device
        self.step_loss = like.step_loss
        self.size = len(like.trials)
        self.batch = min(like.keys.batch_size, max(len(p.train) for p in probes))
        self.standard: tuple[Tensor, Tensor] | None = None
        self.rates: list[float] = []
        self.rates_there = torch.empty(0)

    @torch.no_grad()
    def run(
        self,
        advance: Callable[[int], None],
        stop: threading.Event,
        finished: Callable[[Probe], None],
    ) -> None:
        """Train to the end, or until ``stop``.

        Args:
            advance: is told how many steps of one trial were done.
            finished: is told of each probe that is done.
        """
        for probe in self.probes:
            with _kept(probe):
                probe.begin(advance)
        self._join()
        batch = torch.empty(0)
        clock, step = time.monotonic(), 0
        while self._part_with(finished):
            if step % BLOCK == 0:
                clock = self._share_time(clock)
                if stop.is_set() or clock - min(p.saved for p in self.going) > SAVE_SECONDS:
                    self._save()
                if stop.is_set():
                    return
            step += 1
            self._turn_pages()
            if any(probe.error for probe in self.going):
                continue
            batch = self._step(batch)
            due = []
            for group, probe in enumerate(self.going):
                probe.count(advance)
                if probe.due:
                    due.append((group, probe))
            if not due:
                continue
            clock = self._share_time(clock)
            for group, probe in due:
                self._lend(group, probe)
                with _kept(probe):
                    probe.evaluate(advance)
                probe.stack.keep([])
                self.loss_sum[group * self.size : (group + 1) * self.size] = 0
            clock = self._share_time(clock)

    # ---- the stack --------------------------------------------------------------------------

    def _join(self) -> None:
        """Take the rows of all probes that are not done."""
        self.going = [probe for probe in self.probes if not probe.done]
        if not self.going:
            return
        self.stack = GroupedHeads(
            [p.stack for p in self.going], [p.active for p in self.going], self.size
        )
        self.loss_sum = torch.zeros(len(self.stack), device=self.device)
        for group, probe in enumerate(self.going):
            self.loss_sum[self._rows(group, probe)] = probe.loss_sum
            probe.stack.keep([])
        self.epochs = [None] * len(self.going)
        self._arrange()

    def _arrange(self) -> None:
        """What depends on which probes are in the stack."""
        self.rates = []
        standards = [probe.standard for probe in self.going if probe.standard is not None]
        if standards:
            mean, scale = (torch.stack(parts)[:, None] for parts in zip(*standards, strict=True))
            self.standard = mean, scale  # (groups, 1, states, width)

    def _rows(self, group: int, probe: Probe) -> list[int]:
        """The rows of a probe's active trials."""
        return [group * self.size + t for t in probe.active]

    def _lend(self, group: int, probe: Probe) -> None:
        """Give a probe its active trials as they stand, to evaluate or save."""
        rows = self._rows(group, probe)
        probe.stack, probe.loss_sum = self.stack.part(rows), self.loss_sum[rows]

    def _part_with(self, finished: Callable[[Probe], None]) -> bool:
        """Let those go that are done; returns whether any stay."""
        done = [probe for probe in self.probes if probe.done]
        self.probes = [probe for probe in self.probes if not probe.done]
        stay = [group for group, probe in enumerate(self.going) if not probe.done]
        if len(stay) < len(self.going):
            rows = [group * self.size + t for group in stay for t in range(self.size)]
            self.stack.keep(rows)
            self.loss_sum = self.loss_sum[rows]
            self.going = [self.going[group] for group in stay]
            self.epochs = [self.epochs[group] for group in stay]
            if stay:
                self._arrange()
        for probe in done:
            probe.free()
            finished(probe)
        return bool(self.going)

    # ---- one step ---------------------------------------------------------------------------

    def _turn_pages(self) -> None:
        """Draw the batches of the probes that begin an epoch, or go on in one."""
        for group, probe in enumerate(self.going):
            if self.epochs[group] is None or probe.step % probe.per_epoch == 0:
                with _kept(probe):
                    self.epochs[group] = Epoch.of(probe, self.batch)

    def _step(self, buffer: Tensor) -> Tensor:
        """One step of every probe; returns the buffer of the batches' means."""
        indices, targets, weights = [], [], []
        for probe, epoch in zip(self.going, self.epochs, strict=True):
            assert epoch is not None
            at = probe.step % probe.per_epoch
            indices.append(epoch.indices[at])
            targets.append(epoch.targets[at])
            weights.append(epoch.shares[at])
        buffer = gather(self.means, torch.stack(indices), buffer, self.standard)
        # Of each head, those of its group.
        each_target = torch.stack(targets).repeat_interleave(self.size, 0)
        each_weight = torch.stack(weights).repeat_interleave(self.size, 0)

        def loss(outputs: Tensor) -> tuple[Tensor, Tensor]:
            return self.step_loss.gradient(outputs, each_target, each_weight)

        self.loss_sum += self.stack.step_all(buffer, loss, self._rates())
        return buffer

    def _rates(self) -> Tensor:
        """The learning rate of each head, 0 of those that stopped: (heads,)."""
        rates = [0.0] * len(self.stack)
        for group, probe in enumerate(self.going):
            for row, trial in zip(self._rows(group, probe), probe.active, strict=True):
                rates[row] = probe.rate(trial)
        if rates != self.rates:  # sent only where they changed
            self.rates, self.rates_there = rates, torch.tensor(rates, device=self.device)
        return self.rates_there

    # ---- interruption, and the time ---------------------------------------------------------

    def _save(self) -> None:
        for group, probe in enumerate(self.going):
            self._lend(group, probe)
            probe.save()
            probe.stack.keep([])

    def _share_time(self, since: float) -> float:
        """Share the time since then among all trials that train; returns now."""
        now = time.monotonic()
        trials = sum(len(probe.active) for probe in self.going)
        for probe in self.going:
            probe.spend((now - since) * len(probe.active) / max(trials, 1))
        return now


@contextlib.contextmanager
def _kept(probe: Probe) -> Iterator[None]:
    """An error that is the user's to mend ends this probe alone."""
    try:
        yield
    except UserError as error:
        probe.error = error
