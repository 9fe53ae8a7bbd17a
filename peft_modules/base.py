"""The method contract and the ``a+b`` grammar.

A method is a documented config dataclass with one function, ``patch(upstream)``, that changes an
upstream and returns the parameters it wants trained. Methods compose: ``lora+ws``; options stand
in the name: ``lora:r=16,targets=q+v``; one option may stand alone: ``partial:3``; a paper's
options are a preset: ``lora@peft-ser``, and those given beside it win: ``lora@peft-ser:r=32``.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from emopeft.errors import UserError, unknown
from emopeft.options import checked, converted, shortened, written
from emopeft.registry import Registry
from emopeft.upstream.base import Upstream

# How much of the encoder trains; chooses the default recipe.
FROZEN, PEFT, FINETUNE = "frozen", "peft", "finetune"


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods; subclasses are frozen dataclasses whose fields are their options.

    Class attributes:
        name: in the grammar. summary, reference: for ``--list methods``.
        kind: "frozen", "peft" or "finetune".
        order: methods are applied in this order, whatever the order they are written in, so that
            e.g. a bottleneck adapter comes before a gate at a block's output.
        positional: the option that may be given without its name (``partial:3``).
        presets: options of papers by name, for ``name@preset``.
        identity: whether the freshly patched upstream gives exactly the same states as before.
        adds: whether all that trains is put in (and can be taken out), nothing pretrained.
        needs_blocks: whether the upstream's blocks must be known.
        needs_steps: whether the upstream must be runnable block by block, not only as a whole.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[str]
    kind: ClassVar[str] = PEFT
    order: ClassVar[int] = 50
    positional: ClassVar[str | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    identity: ClassVar[bool] = True
    adds: ClassVar[bool] = True
    needs_blocks: ClassVar[bool] = True
    needs_steps: ClassVar[bool] = False

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        """Change ``upstream`` in place; return what is to be trained.

        Raises:
            UserError: the method cannot work on this upstream, with the reason.
        """
        raise NotImplementedError

    def changed(self, upstream: Upstream) -> Iterable[Tensor]:
        """Pretrained tensors that `patch` changed and that do not train: checkpoints hold them."""
        return ()

    def resolved(self, upstream: nn.Module) -> dict[str, Any] | None:
        """The configuration that a library made of the options, as JSON; None where none does.

        Args:
            upstream: what was patched: the upstream or the head.
        """
        return None

    def patch_head(self, head: nn.Module) -> Iterable[nn.Parameter]:
        """Change the head in place (its ``classifier``); return what is trained there instead."""
        return ()

    def remove(self, upstream: Upstream) -> None:
        """Undo what `peft_modules.placing` does not know of; its own things are gone already."""

    def merge(self, upstream: Upstream) -> None:
        """Turn what was trained into plain weights of the model; same outputs, nothing patched.

        Raises:
            UserError: this method's update cannot be written as weights of the plain model.
        """
        if self.adds:
            raise UserError(
                f"method '{self.name}' adds modules that the plain model has no place for; "
                "only methods that change weights can be merged: use export instead"
            )

    # ---- two updates at once ----------------------------------------------------------------

    def doubled(self) -> Method:
        """The method that has room for two of this one's updates side by side; itself where they
        are differences of tensors, which add up in the tensors.

        Raises:
            UserError: two updates of this method cannot be added.
        """
        if self.adds and self.kind != FROZEN:
            raise UserError(
                f"two updates of method '{self.name}' cannot be added; transfer.strategy=addition "
                "takes lora, ba, wg, ws and what trains pretrained weights"
            )
        return self

    def added(self, name: str, start: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """A tensor of `doubled` that holds both updates.

        Args:
            name: of the parameter. start: where both began; first, second: where they ended, all
                in float64.

        Raises:
            UserError: the update at the start is not nothing, so that it would count twice.
        """
        return first + (second - start)

    # ---- what the trainer calls -----------------------------------------------------------

    def after_step(self, upstream: Upstream, step: int, total: int) -> None:
        """After optimiser step ``step`` (from 1) of ``total``, gradients still there."""

    def penalty(self, upstream: Upstream) -> Tensor | None:
        """A term that the method adds to the loss of an optimiser step, or None."""
        return None

    def progress(self, upstream: Upstream) -> dict[str, Any]:
        """What `after_step` keeps beside parameters, as tensors and plain data (to resume)."""
        return {}

    def load_progress(self, upstream: Upstream, state: dict[str, Any]) -> None:
        """Put back what `progress` gave."""

    def spec(self) -> str:
        """The method as it would be written, with the options that differ from the defaults."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{field.name}={written(value)}")
        return self.name + (":" + ",".join(parts) if parts else "")

    def options(self) -> dict[str, Any]:
        """All options, defaults included, as JSON."""
        return {k: written(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


class Library(Protocol):
    """Methods that another library brings, looked up late because importing it is slow."""

    def names(self) -> list[str]: ...

    def make(self, name: str) -> type[Method]:
        """Raises UserError with the reason when the method cannot patch linear layers."""
        ...


class Methods(Registry[type[Method]]):
    """Our own methods, then those of the libraries."""

    library: Library | None = None

    def __getitem__(self, name: str) -> type[Method]:
        self.discover()
        if name in self._items or self.library is None:
            return super().__getitem__(name)
        if name not in self.library.names():
            raise unknown(self.kind, name, [*self._items, *self.library.names()])
        return self.add(name, self.library.make(name))

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name) or self.library is None:
            return super().__contains__(name)
        return name in self.library.names()

    def __iter__(self) -> Iterator[str]:
        self.discover()
        for name in self.library.names() if self.library else ():
            if name not in self._items:
                try:
                    self.add(name, self.library.make(name))  # type: ignore[union-attr]
                except UserError:
                    continue  # not for linear layers; asking for it by name says why
        return super().__iter__()


METHODS = Methods("method", "emopeft.peft_modules")


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: make a method known under its name."""
    METHODS.add(cls.name, cls)
    return cls


def option(default: Any, help: str) -> Any:
    """A dataclass field with its documentation."""
    return dataclasses.field(default=default, metadata={"help": help})


def parse(spec: str) -> list[Method]:
    """``lora:r=16,targets=q+v+ws`` to methods, in the order they will be applied.

    A ``+`` is part of an option's list unless a method's name follows it.

    Raises:
        UserError: unknown method or option (with the nearest ones), a wrong value, a method twice.
    """
    shown = shortened(spec)
    pieces: list[str] = []
    for piece in spec.split("+"):
        name = piece.partition(":")[0].partition("@")[0].strip()
        if pieces and name not in METHODS and "=" in pieces[-1]:
            pieces[-1] += "+" + piece
        else:
            pieces.append(piece.strip())
    return _sum([_parse_one(piece) for piece in pieces], shown)


def _sum(methods: list[Method], shown: str) -> list[Method]:
    """Methods in the order they are applied; raises UserError where they cannot stand together."""
    names = [m.name for m in methods]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"method '{name}' stands twice in '{shown}'; give it once")
    if "none" in names and len(names) > 1:
        raise UserError(f"'none' in '{shown}' cannot be added to another method; leave it out")
    return sorted(methods, key=lambda m: (m.order, m.name))


def canonical(methods: Sequence[Method]) -> str:
    """One spelling for a sum of methods, whatever the order and defaults it was written with.

    For people: what stands in it means something else once a default changes. What must not
    depend on that, an identity or a checkpoint, takes `to_parts`.
    """
    return "+".join(m.spec() for m in methods)


def to_parts(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """A sum of methods with all its options, defaults included, as JSON."""
    return [{"name": m.name, "options": m.options()} for m in methods]


def from_parts(parts: Sequence[Mapping[str, Any]]) -> list[Method]:
    """The methods that `to_parts` described, whatever the defaults are today.

    An option that is not named did not exist when it was written: it takes today's default.

    Args:
        parts: of ``name`` and ``options``, as untrusted data of those types.

    Raises:
        UserError: a method or option that is not known here, or a value that an option cannot have.
    """
    methods = []
    for part in parts:
        cls = METHODS[part["name"]]
        types = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        values = {}
        for key, value in part["options"].items():
            where = f"{cls.name}:{shortened(key)}"
            if key not in fields:
                raise UserError(
                    f"the option {where} is not known here: it was written with other versions; "
                    f"install those (known: {', '.join(fields)})"
                )
            same = type(value) is type(fields[key].default) and value == fields[key].default
            values[key] = value if same else checked(where, value, types[key])
        methods.append(cls(**values))
    if not methods:
        raise UserError("the list of methods is empty; a frozen upstream is the method 'none'")
    return _sum(methods, shortened("+".join(m.name for m in methods)))


def kind_of(methods: list[Method]) -> str:
    """The heaviest kind of a sum."""
    kinds = [m.kind for m in methods]
    return FINETUNE if FINETUNE in kinds else PEFT if PEFT in kinds else FROZEN


def _parse_one(text: str) -> Method:
    head, _, rest = text.partition(":")
    name, at, preset = (x.strip() for x in head.partition("@"))
    cls = METHODS[name]
    types = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    if at:
        if preset not in cls.presets:
            raise unknown(f"preset of {name}", preset, cls.presets)
        values |= cls.presets[preset]
    option_names: set[str] = set()
    for item in filter(None, (x.strip() for x in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            if cls.positional is None or option_names:
                raise UserError(
                    f"'{shortened(item)}' in '{shortened(text)}' is not an option; write key=value"
                )
            key, value = cls.positional, item
        if key not in fields:
            raise unknown(f"option of {name}", key, fields)
        values[key] = converted(f"{name}:{key}", value.strip(), types[key])
        option_names.add(key)
    return cls(**values)
