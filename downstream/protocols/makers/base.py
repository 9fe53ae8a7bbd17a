"""Protocols that are made of the corpora at hand by a rule with a name: ``pool:folds=5``.

A maker is a file of this folder. It gives a protocol file as data (`downstream.protocols.protocol`)
which is then checked like any other, so that the same corpora and options give the same plan and
hash everywhere. The options stand in the name of what is made.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance
from emopeft.downstream.protocols.protocol import Protocol, parse
from emopeft.errors import UserError, unknown
from emopeft.options import converted, shortened
from emopeft.registry import Registry


@dataclasses.dataclass(frozen=True)
class Maker:
    """A rule that makes protocols.

    Attributes:
        name: as given to ``--protocol``, before the colon.
        help: a line for the list of protocols.
        options: a dataclass; its fields are what stands after the colon.
        make: ``make(options, corpora, utterances)`` gives a protocol file as data. The corpora come
            as ``--corpus`` orders them, with what their options change, and ``folds`` bound to
            where they lie; of the utterances nothing but ids, speakers, sessions, styles and
            labels is used. Raises UserError where they do not go together.
    """

    name: str
    help: str
    options: type
    make: Callable[[Any, Sequence[Corpus], Sequence[Utterance]], Mapping[str, Any]]


MAKERS: Registry[Maker] = Registry("protocol", "emopeft.downstream.protocols.makers")


def register(maker: Maker) -> Maker:
    """Make a maker known under its name."""
    return MAKERS.add(maker.name, maker)


def is_made(spec: str) -> bool:
    """Whether ``--protocol`` names a maker."""
    return spec.partition(":")[0] in MAKERS


def make(spec: str, corpora: Sequence[Corpus], utterances: Sequence[Utterance]) -> Protocol:
    """The protocol that ``NAME:option=value,...`` makes of the corpora.

    Raises UserError for an option that is not known, or corpora that do not go together.
    """
    name, _, rest = spec.partition(":")
    maker = MAKERS[name]
    fields = typing.get_type_hints(maker.options)
    values: dict[str, Any] = {}
    for item in filter(None, (x.strip() for x in rest.split(","))):
        key, equals, value = item.partition("=")
        if key not in fields or not equals:
            raise unknown(f"option of protocol {name}", shortened(key), fields)
        if key in values:
            raise UserError(f"option {key} stands twice in '{shortened(spec)}'; give it once")
        values[key] = converted(f"{name}:{key}", value.strip(), fields[key])
    return parse(maker.make(maker.options(**values), corpora, utterances), f"protocol {spec}")
