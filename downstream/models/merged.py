"""A trained model whose adapters stand in its plain weights, where the methods can do that."""

from __future__ import annotations

from collections.abc import Callable

from emopeft.downstream.models.model import AdaptedModel
from emopeft.errors import UserError
from emopeft.peft_modules.apply import merge


def merged_of(make: Callable[[], AdaptedModel]) -> tuple[AdaptedModel | None, str | None]:
    """A model with its adapters merged; or None, and why there is none.

    Args:
        make: a model of its own, which is changed: a library may refuse half way.
    """
    model = make()
    before = [(name, type(module)) for name, module in model.upstream.named_modules()]
    try:
        merge(model.upstream, model.methods)
    except UserError as error:
        return None, str(error)
    if before == [(name, type(module)) for name, module in model.upstream.named_modules()]:
        return None, f"'{model.adaptation.spec}' puts no module into the encoder"
    return model, None
