"""The proof that every trainable tensor is live.

Some attention implementations hand ``q_proj.weight`` to a fused kernel and never call the
projection: a LoRA on it changes nothing, gets no gradient, and no error says so (PROTOCOLS.md,
trap 1). So after patching, one small forward and backward pass must reach each trainable tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules.tensors import double_copy
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM, SAMPLE_RATE, Upstream
from emopeft.upstream.states import mask_of

# In float32, rounding alone gives dead tensors gradients of up to 2e-7 of the largest one, and live
# ones go down to 7e-7 (measured on all methods and families); in float64 they are far apart.
SUSPICIOUS = 1e-5
SUSPICIOUS_ON_ACCELERATOR = 1e-2  # TF32, or a kernel's own order of sums, rounds to 1e-3
DEAD_IN_DOUBLE = 1e-10


def prove_live(upstream: Upstream) -> None:
    """Raise UserError naming the trainable tensors that get no gradient.

    Tensors that start at zero (LoRA's B) hide the gradient of their partner (A), so they are set
    to small random values for the proof and put back after it. The bias of the attention keys is
    exempt: softmax does not change when the same number is added to all scores of a query, so its
    gradient is zero in every implementation.
    """
    dead = dead_tensors(upstream)
    if dead:
        shown = ", ".join(dead[:4]) + (f" and {len(dead) - 4} more" if len(dead) > 4 else "")
        raise UserError(
            f"{len(dead)} of the trainable tensors on {upstream.name} are dead (no gradient "
            f"reaches them, training would leave them as they are): {shown}; this upstream does "
            "not call the modules that the method patches, or its output does not depend on "
            "them: choose other targets or another method"
        )


def dead_tensors(upstream: Upstream) -> list[str]:
    """The names of trainable tensors that no gradient reaches, or only one made of rounding.

    What values hide is not dead: after a first stage all ReLUs of a bottleneck may be off on these
    clips, and on others not. So what seems dead is drawn anew and tried again; what is frozen stays
    as it is, and what a frozen zero cuts off stays dead.
    """
    trainable = dict(upstream.trainable())
    if not trainable:
        return []
    dead = _unreached(upstream, trainable)
    if dead:
        with _redrawn([trainable[name] for name in dead]):
            dead &= _unreached(upstream, trainable)
    return [name for name in trainable if name in dead]


def _unreached(upstream: Upstream, trainable: dict[str, nn.Parameter]) -> set[str]:
    """Those of the tensors that no gradient reaches with the values that they have."""
    with _nothing_at_zero(trainable):
        sizes = _gradient_sizes(upstream, upstream, None)
        largest = max(sizes.values())
        on_cpu = all(p.device.type == "cpu" for p in trainable.values())
        suspicious = SUSPICIOUS if on_cpu else SUSPICIOUS_ON_ACCELERATOR
        doubtful = {
            name
            for name, size in sizes.items()
            if size <= suspicious * largest and not is_key_bias(upstream, name)
        }
        dead = {name for name in doubtful if sizes[name] == 0}
        if doubtful - dead and upstream.has_blocks:
            exact = _gradient_sizes_in_double(upstream)
            largest = max(exact.values(), default=0.0)
            dead |= {n for n in doubtful if 0 < exact.get(n, 0.0) < DEAD_IN_DOUBLE * largest}
    return dead


@contextlib.contextmanager
def _redrawn(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within the block, these tensors hold other values, about as large."""
    generator = torch.Generator().manual_seed(1)
    kept = [p.detach().clone() for p in parameters]
    try:
        for parameter in parameters:
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
            size = float(parameter.detach().float().square().mean().sqrt()) or 1e-2
            parameter.data.copy_(drawn * size)
        yield
    finally:
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.data.copy_(values)


@contextlib.contextmanager
def _nothing_at_zero(trainable: dict[str, nn.Parameter]) -> Iterator[None]:
    """Within the block, tensors that are all zero hold small random values."""
    generator = torch.Generator().manual_seed(0)
    zeros = [p for p in trainable.values() if not p.detach().any()]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        try:
            for parameter in zeros:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 1e-2)
            yield
        finally:
            for parameter in zeros:
                parameter.data.zero_()


def _gradient_sizes(
    upstream: Upstream, runs: Upstream, features: list[Tensor] | None
) -> dict[str, float]:
    """Per trainable tensor the largest element of its gradient; 0 where there is none.

    The loss is a random projection of all hidden states of two short clips of different lengths.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = (
        runs.forward_from(FROM_WAVEFORM, probe_clips(upstream))
        if features is None
        else runs.forward_from(FROM_FEATURES, features)
    )
    mask = mask_of(hidden.lengths, hidden.layers[0].shape[1]).unsqueeze(-1)
    total = torch.zeros((), device=mask.device)
    for layer in hidden.layers:
        total = (
            total + (layer * torch.randn(layer.shape, generator=generator).to(layer) * mask).sum()
        )
    trainable = dict(runs.trainable())
    if not total.requires_grad:  # the output does not see a single one of them
        return dict.fromkeys(trainable, 0.0)
    gradients = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
    return {
        name: 0.0 if g is None else float(g.abs().max())
        for name, g in zip(trainable, gradients, strict=True)
    }


def probe_clips(upstream: Upstream) -> list[Tensor]:
    """Two short clips (samples,) of noise, of different lengths."""
    generator = torch.Generator().manual_seed(0)
    device = next(upstream.parameters()).device
    samples = max(upstream.min_samples + 8 * upstream.stride, SAMPLE_RATE // 4)
    return [
        (torch.randn(n, generator=generator) * 0.1).to(device)
        for n in (samples, samples - 3 * upstream.stride)
    ]


def _gradient_sizes_in_double(upstream: Upstream) -> dict[str, float]:
    """The same in float64, from the front end on (which works in float32); {} if that fails.

    Always on the CPU: MPS has no float64, and an accelerator's peak memory is the training's.
    """
    with torch.no_grad():
        features = [x.cpu().double() for x in upstream.extract(probe_clips(upstream))]
    try:
        return _gradient_sizes(upstream, double_copy(upstream), features)
    except RuntimeError:  # a tuner that insists on float32: what float32 showed has to do
        return {}


def prove_head_live(head: nn.Module, upstream: Upstream) -> None:
    """The same for what a method put into a head; raises UserError naming the dead tensors."""
    names = [name for group in getattr(head, "patched", {}).values() for name in group]
    if not names:
        return
    parameters = dict(head.named_parameters())
    zeros = [parameters[n] for n in names if not parameters[n].detach().any()]
    generator = torch.Generator().manual_seed(0)
    shape = (2, upstream.num_blocks + 1) + (() if head.pooled else (4,)) + (upstream.width,)
    training = head.training
    head.eval()  # what dropout hides is not dead
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            for parameter in zeros:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 1e-2)
            states = torch.randn(shape, generator=generator).to(next(head.parameters()).device)
            output = head(states, torch.tensor([4, 4], device=states.device))
            patched = [parameters[n] for n in names]
            loss = output.square().sum() + 0.0 * sum(p.sum() for p in patched)
            gradients = torch.autograd.grad(loss, patched)
        finally:
            head.train(training)
            for parameter in zeros:
                parameter.data.zero_()
    dead = [n for n, g in zip(names, gradients, strict=True) if not bool(g.any())]
    if dead:
        raise UserError(f"the head does not use {', '.join(dead[:4])}; choose another method")


def prove_seen(upstream: Upstream, last: int) -> None:
    """That nothing trains above the last state that a head sees, where it would change no output.

    Raises UserError naming such a tensor.
    """
    if last == upstream.num_blocks:
        return
    above: list[nn.Module] = [upstream]
    if upstream.has_blocks:
        above = [*upstream.parts()["finish"]]
        for i in range(last, upstream.num_blocks):
            above += upstream.block_modules(i)
    dead = {id(p) for module in above for p in module.parameters() if p.requires_grad}
    names = [name for name, p in upstream.trainable() if id(p) in dead]
    if names:
        raise UserError(
            f"head.layers={last} sees nothing of {len(names)} tensors that would train above state "
            f"{last}, such as {names[0]}; take -p none, only blocks below {last}, or "
            "head.layers=last"
        )


def is_key_bias(upstream: Upstream, name: str) -> bool:
    """Whether a parameter is the bias of the attention keys, to which attention is invariant."""
    key = upstream.roles.get("k")
    return key is not None and f".{key}." in name and name.endswith("bias")


def changed_output(upstream: Upstream, parameter: nn.Parameter, wavs: list[Tensor]) -> float:
    """The largest change of any hidden state when ``parameter`` is perturbed (then restored)."""
    with torch.no_grad():
        before = upstream(wavs).layers
        saved = parameter.detach().clone()
        generator = torch.Generator().manual_seed(1)
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.device))
        after = upstream(wavs).layers
        parameter.copy_(saved)
    return max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))
