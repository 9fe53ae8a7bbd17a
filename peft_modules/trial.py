"""Whether a method of peft works on linear layers: it is tried on two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules.injection import put_on, quiet

if TYPE_CHECKING:
    from emopeft.peft_modules.library import PeftMethod

TRIAL_WIDTH = 256  # large enough for every method's default sizes


class Stack(nn.Module):
    """Two linear layers with something between them, to try a method on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(TRIAL_WIDTH, TRIAL_WIDTH)
        self.second = nn.Linear(TRIAL_WIDTH, TRIAL_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def trial(cls: type[PeftMethod]) -> bool:
    """Whether it is exactly the identity at init; raises UserError when it does not work."""
    with quiet(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        stack, x = Stack(), torch.randn(3, TRIAL_WIDTH)
        before = stack(x).detach()
        arguments = cls().arguments()
        try:
            _, parameters = put_on(stack, cls.name, cls.type_name, ["first", "second"], arguments)
            after = stack(x)
            gradients = torch.autograd.grad(after.sum(), parameters, allow_unused=True)
        except Exception as error:  # each method fails in its own way
            raise UserError(
                f"peft's '{cls.name}' does not work on linear layers ({type(error).__name__}); "
                "see --list methods"
            ) from error
        if not parameters or all(g is None for g in gradients):
            raise UserError(f"peft's '{cls.name}' trains nothing on linear layers")
        return torch.equal(before, after.detach())


def changes_weights(initialisation: str) -> bool:
    with torch.random.fork_rng(devices=[]):
        stack = Stack()
        try:
            arguments = {"init_lora_weights": initialisation}
            injection, _ = put_on(stack, initialisation, "LORA", ["first"], arguments)
        except UserError:
            return False
    return bool(injection.changed)
