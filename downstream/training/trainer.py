"""Training of one fold with one seed: steps, evaluation on dev, the best state, resuming."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from emopeft.downstream.data.recipe import TrainKeys
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.checkpoint import read_progress, write_progress
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.training.batching import epoch_order, micro_batches
from emopeft.downstream.training.selection import Fit, Selection, check_loss, rate_factor
from emopeft.errors import UserError

# What of a trainer's progress is plain data and goes into the checkpoint by name.
PROGRESS_FIELDS = ("step", "seconds", "loss_count")
SAVE_SECONDS = 60.0  # how much work an interruption may cost


class Trainer:
    """Trains a model's head and patched modules on one fold.

    Args:
        model: adapted upstream and head, newly initialised.
        examples: all utterances of the protocol; train, dev: the fold's indices into them.
        keys: how to train; lr: the rate (keys.lr, or a candidate of a search).
        seed: of order and dropout (the model's initial state was drawn from it by the caller).
        checkpoint: where progress is kept (None: nowhere, for short searches).
        label: shown on the progress bar.
        curves: TensorBoard folder, or None.
    """

    def __init__(
        self,
        model: AdaptedModel,
        examples: Examples,
        task: EmotionTask,
        train: Sequence[int],
        dev: Sequence[int],
        keys: TrainKeys,
        lr: float,
        seed: int,
        accelerator: Accelerator,
        checkpoint: Path | None = None,
        label: str = "",
        curves: Path | None = None,
    ):
        self.examples, self.task, self.keys = examples, task, keys
        self.train_indices, self.dev_indices = list(train), list(dev)
        self.lr, self.seed, self.label = lr, seed, label
        self.accelerator, self.checkpoint, self.curves = accelerator, checkpoint, curves
        self.plain = model.to(accelerator.device)
        save_memory_and_time(model, keys)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        in_head = [p for p in model.head.parameters() if p.requires_grad]
        in_upstream = [p for p in model.upstream.parameters() if p.requires_grad]
        # A new head wants larger steps than pretrained weights.
        self.rates = [lr, keys.head_lr or lr]
        optimizer = kinds[keys.optimizer](
            [{"params": in_upstream}, {"params": in_head}], lr=lr, weight_decay=keys.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.per_epoch = math.ceil(len(self.train_indices) / keys.batch_size)
        self.total = keys.steps or math.ceil((keys.epochs or 1) * self.per_epoch)
        self.eval_every = keys.eval_every or self.per_epoch
        self.weights: Tensor | None = None
        if keys.class_weights == "balanced":
            labels = examples.labels[self.train_indices]
            self.weights = task.class_weights(labels).to(accelerator.device)
        # Progress: all of it stands in the checkpoint.
        self.step = 0
        self.seconds = 0.0
        self.loss_sum, self.loss_count = torch.zeros((), device=accelerator.device), 0
        self.selection = Selection()
        self.best_state: dict[str, Tensor] = {}

    # ---- the loop ---------------------------------------------------------------------------

    def fit(self) -> Fit:
        """Train to the end (or from where an interrupted training stopped).

        Raises:
            Diverged: the loss became NaN or infinite.
        """
        torch.manual_seed(self.seed + 1)
        self._resume()
        started = saved = time.monotonic()
        before = self.seconds
        bar = tqdm(
            total=self.total,
            initial=self.step,
            desc=self.label,
            unit="step",
            disable=None if self.accelerator.is_main_process else True,
            leave=False,
        )
        epoch, order = -1, []
        self.model.train()
        while self.step < self.total and not self.selection.stopped(self.keys):
            if self.step // self.per_epoch != epoch:
                epoch = self.step // self.per_epoch
                order = epoch_order(len(self.train_indices), self.seed, epoch)
            first = self.step % self.per_epoch * self.keys.batch_size
            chosen = order[first : first + self.keys.batch_size]
            self._optimise([self.train_indices[i] for i in chosen])
            self.step += 1
            bar.update()
            self.seconds = before + time.monotonic() - started
            evaluated = self.step % self.eval_every == 0 or self.step == self.total
            if evaluated:
                self._evaluate(bar)
            if time.monotonic() - saved > (SAVE_SECONDS / 6 if evaluated else SAVE_SECONDS):
                self._save()
                saved = time.monotonic()
        bar.close()
        self.plain.load_trainable_state(self.best_state)
        return self.selection.fit(self.step, self.seconds)

    def _optimise(self, batch: list[int]) -> None:
        """One optimiser step on a batch, shared among processes and split to fit the budget."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        own = sorted(batch, key=lambda i: (self.examples.seconds[i], i))[rank::world]
        if self.examples.preloaded is not None:
            groups = [own]
        else:
            groups = micro_batches(own, self.examples.seconds, self.keys.batch_seconds)
        if not own:  # fewer utterances than processes: take part in the exchange with weight zero
            groups = [batch[:1]]
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._rate_factor()
        for number, group in enumerate(groups):
            last = number == len(groups) - 1
            # Gradients are exchanged once per step, at the last micro-batch.
            exchange = contextlib.nullcontext() if last else self.accelerator.no_sync(self.model)
            with exchange:
                with self.accelerator.autocast():  # for what is frozen and not kept
                    inputs = self.examples.batch(group, self.accelerator.device)
                losses = self.task.losses(self.model(inputs), inputs.labels, self.weights)
                # Processes average their gradients: times their number gives the sum.
                loss = losses.sum() * (world / len(batch)) * bool(own)
                penalty = self.plain.penalty() if last else None
                self.accelerator.backward(loss if penalty is None else loss + penalty)
            self.loss_sum += loss.detach() / world
        if self.keys.clip is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.keys.clip)
        self.optimizer.step()
        self.plain.after_step(self.step + 1, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_count += 1

    def _rate_factor(self) -> float:
        """The schedule's factor on the learning rate at this step."""
        return rate_factor(self.keys, self.step, self.total, self.selection.plateau)

    # ---- dev --------------------------------------------------------------------------------

    def logits(self, indices: Sequence[int]) -> Tensor:
        """The head's outputs (len(indices), outputs) on the CPU, in the order of ``indices``."""
        return predict_logits(self.model, self.examples, indices, self.keys, self.accelerator)

    def _evaluate(self, bar: tqdm) -> None:
        loss = self.accelerator.reduce(self.loss_sum.clone(), "sum").item() / self.loss_count
        self.loss_sum.zero_()
        self.loss_count = 0
        check_loss(loss, self.label, self.step, self.lr)
        logits, labels = self.logits(self.dev_indices), self.examples.labels[self.dev_indices]
        chosen = self.selection
        if chosen.note(self.task, self.keys, self.step, loss, logits, labels):
            self.best_state = self.plain.trainable_state()
        now, best = chosen.history[-1][self.keys.select], chosen.best[self.keys.select]
        bar.set_postfix_str(f"loss {loss:.3f}, dev {self.keys.select} {now:.3f} (best {best:.3f})")
        self._draw()
        self.model.train()

    def _draw(self) -> None:
        if self.curves is not None and self.accelerator.is_main_process:
            draw(self.curves, self.selection.history[-1:])

    # ---- interruption -----------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoint is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        progress = {
            **{name: getattr(self, name) for name in PROGRESS_FIELDS},
            "selection": self.selection.state(),
            "loss_sum": self.loss_sum.cpu(),
            "best_state": self.best_state,
            "model": self.plain.trainable_state(),
            "methods": self.plain.method_progress(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        write_progress(self.checkpoint, progress)

    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        progress = read_progress(self.checkpoint)
        device = self.accelerator.device
        self.plain.load_trainable_state(progress["model"])
        self.plain.load_method_progress(progress.get("methods", {}))
        self.optimizer.load_state_dict(progress["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(progress["scaler"])
        torch.set_rng_state(progress["rng"])
        if progress["rng_cuda"]:
            torch.cuda.set_rng_state_all(progress["rng_cuda"])
        self.loss_sum = progress["loss_sum"].to(device)
        self.best_state = {k: v.to(device) for k, v in progress["best_state"].items()}
        self.selection = Selection(**progress["selection"])
        for name in PROGRESS_FIELDS:
            setattr(self, name, progress[name])


def save_memory_and_time(model: AdaptedModel, keys: TrainKeys) -> None:
    """Checkpointing and compilation of the blocks that train, where the recipe asks for them."""
    upstream = model.upstream
    if not (keys.checkpointing or keys.compile) or model.start == upstream.num_blocks:
        return
    if not upstream.has_blocks:
        raise UserError(
            f"train.compile and train.checkpointing need an upstream that runs block by block, and "
            f"{upstream.name} is run as a whole; set both to false"
        )
    if keys.compile:
        for block in upstream.blocks[max(model.start, 0) :]:
            block.compile(dynamic=True)
    if keys.checkpointing:
        inner = upstream.run_block

        def run_block(i: int, frames: Tensor, lengths: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return inner(i, frames, lengths)
            return checkpoint(inner, i, frames, lengths, use_reentrant=False)

        upstream.run_block = run_block  # type: ignore[method-assign]


def draw(folder: Path, evaluations: Sequence[dict[str, float]]) -> None:
    """Add evaluations to a TensorBoard folder."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for evaluation in evaluations:
            for name, value in evaluation.items():
                if name != "step":
                    writer.add_scalar(name, value, int(evaluation["step"]))


@torch.inference_mode()
def predict_logits(
    model: torch.nn.Module,
    examples: Examples,
    indices: Sequence[int],
    keys: TrainKeys,
    accelerator: Accelerator,
) -> Tensor:
    """Outputs (len(indices), outputs) in float32 on the CPU, computed by all processes."""
    model.eval()
    own = list(indices)[accelerator.process_index :: accelerator.num_processes]
    budget = math.inf if examples.preloaded is not None else keys.batch_seconds * 2
    found: list[tuple[int, Tensor]] = []
    for group in micro_batches(own, examples.seconds, budget):
        with accelerator.autocast():  # for what is frozen and not kept
            inputs = examples.batch(group, accelerator.device)
        logits = model(inputs).float().cpu()
        found += zip(group, logits, strict=True)
    if accelerator.num_processes > 1:
        found = gather_object(found)
    by_index = dict(found)
    return torch.stack([by_index[i] for i in indices])
