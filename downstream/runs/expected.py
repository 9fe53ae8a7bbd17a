"""What a recipe would take on this machine, and what of it is not here, without running it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from emopeft.downstream.data.keys import UpstreamKeys
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.prepare import choose_corpora, place_of, prepare
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.models.build import Blueprint, upstream_of
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.estimate import Cost, measured
from emopeft.downstream.runs.session import chosen_examples, make_accelerator, numerics_of
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.peft_modules.apply import Adaptation
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import find
from emopeft.upstream.hub import PINNED
from emopeft.upstream.source import CONFIG, WEIGHTS


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a run of a recipe begins with: its plan, and the model of its first seed."""

    recipe: Recipe
    plan: Plan
    upstream: Upstream
    adaptation: Adaptation
    model: AdaptedModel
    numerics: Numerics
    device: torch.device

    @classmethod
    def of(cls, recipe: Recipe) -> Trial:
        """Reads the corpora and loads the upstream; raises UserError as a run would."""
        plan, numerics = prepare(recipe).plan, numerics_of(recipe)
        numerics.apply()
        device = make_accelerator(numerics.precision).device
        upstream = upstream_of(recipe.upstream).to(device)
        blueprint = Blueprint.of(upstream, recipe, plan.task.output_groups)
        adaptation = blueprint.adapt(recipe.seeds[0])
        model = blueprint.model(recipe.seeds[0], adaptation).to(device)
        return cls(recipe, plan, upstream, adaptation, model, numerics, device)

    def cost(self) -> Cost:
        """Timed on a few clips."""
        examples = chosen_examples(self.recipe, self.plan)
        return measured(self.recipe, self.plan, examples, self.model, self.numerics, self.device)


def lacking(recipe: Recipe) -> str | None:
    """What a run of the recipe would need that is not on this machine, in a few words."""
    corpora = choose_corpora(recipe)
    missing = []
    for corpus in corpora:
        try:
            place = place_of(corpus, recipe, len(corpora) > 1)
        except UserError:
            missing.append(corpus.name)
            continue
        if not place.exists():
            missing.append(corpus.name)
    if missing:
        return f"corpus needed: {', '.join(missing)}"
    return None if _weights_here(recipe.upstream) else f"weights needed: {recipe.upstream.name}"


def _weights_here(keys: UpstreamKeys) -> bool:
    """Whether the upstream loads without the network, as far as can be told without trying."""
    if keys.path is not None:
        return Path(keys.path).exists()
    entry = find(keys.name)
    if entry.hub_id is None:
        return not keys.name.startswith("s3prl:")  # which fetches its weights itself
    from huggingface_hub import try_to_load_from_cache

    revision = keys.revision or PINNED.get(entry.hub_id)

    def cached(name: str) -> bool:
        found = try_to_load_from_cache(str(entry.hub_id), name, revision=revision)
        return isinstance(found, str)

    return cached(CONFIG) and any(map(cached, WEIGHTS))
