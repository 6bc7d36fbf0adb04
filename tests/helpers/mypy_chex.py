"""A plugin for mypy: what `chex.dataclass` makes is a dataclass, and has a method `replace`.

Without it the type checker takes these classes for empty ones.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.nodes import ARG_STAR2, Argument, DataclassTransformSpec, Var
from mypy.plugin import ClassDefContext, Plugin
from mypy.plugins.common import add_method_to_class
from mypy.plugins.dataclasses import DataclassTransformer, dataclass_tag_callback
from mypy.types import AnyType, TypeOfAny
from mypy.typevars import fill_typevars

# chex has no types of its own, so the checker knows the decorator by where it was imported.
_SUFFIX = ".chex.dataclass"
_SPEC = DataclassTransformSpec(
    eq_default=True,
    order_default=False,
    kw_only_default=True,  # chex takes fields by name only
    frozen_default=False,
)


def _tag(context: ClassDefContext) -> None:
    dataclass_tag_callback(context)
    anything = AnyType(TypeOfAny.explicit)
    changes = Argument(Var("changes", anything), anything, None, ARG_STAR2)
    add_method_to_class(
        context.api, context.cls, "replace", [changes], fill_typevars(context.cls.info)
    )


def _transform(context: ClassDefContext) -> bool:
    return DataclassTransformer(context.cls, context.reason, _SPEC, context.api).transform()


class ChexPlugin(Plugin):
    """Hands classes decorated by chex to mypy's own plugin for dataclasses."""

    def get_class_decorator_hook(self, fullname: str) -> Callable[[ClassDefContext], None] | None:
        """For the first pass: what is to become a dataclass."""
        return _tag if fullname.endswith(_SUFFIX) else None

    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        """For the last pass: its fields and methods."""
        return _transform if fullname.endswith(_SUFFIX) else None


def plugin(version: str) -> type[Plugin]:
    """What mypy calls."""
    del version
    return ChexPlugin
