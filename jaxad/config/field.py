"""The record of one config field: default, help, allowed values, and what the field applies to."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxad.errors import UserError
from jaxad.nn.fields import Interval, OneOf

#: What a field sets: `setting` changes results; `evaluation` changes only those of an evaluation;
#: `path` is a place on this machine; `execution` says how a run is executed. Paths and execution do
#: not count as differences between runs.
Role = Literal["setting", "evaluation", "path", "execution"]

#: Kinds of data sets that `Field.data` may name; a data set can be of several kinds.
DATA_KINDS: Mapping[str, str] = {
    "files": "your own images and scans",
    "volumes": "scans, your own or published",
    "published": "data sets of the papers",
    "tfds": "tfds:<name>",
    "external": "package.module:function",
}


@dataclasses.dataclass(frozen=True)
class Field:
    """A config field, or a group of fields that every system names differently (default `{}`).

    Attributes:
        path: dotted path without `config.`.
        default: value in `base()`; its type is the field's type.
        help: one line for `--help`.
        allowed: an interval such as `[0, 1)`, or the choices. For a tuple they hold for each item,
            for an open group for each value.
        items: type of the items of a tuple that is empty by default.
        role: whether the field counts as a difference between runs; see `Role`.
        data: names and kinds of the data sets that use the field; empty: all of them.
        requires: another field and the values of it under which this field has an effect.
        trained_only: whether only systems that are trained by gradients use the field.
        per_experiment: whether each experiment of a study has its own value although the other
            fields of `config.data` are shared.
        selects_only: whether a field of `config.data` only selects or labels images, which are
            otherwise the same.
        aliases: other usual names of the field, which messages translate.
    """

    path: str
    default: Any
    help: str
    allowed: str | tuple[str, ...] = ()
    items: type = str
    role: Role = "setting"
    data: tuple[str, ...] = ()
    requires: tuple[str, tuple[str, ...]] = ("", ())
    trained_only: bool = False
    per_experiment: bool = False
    selects_only: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def is_open_group(self) -> bool:
        """Whether the fields below this path are named by the system or the study."""
        return self.default == {}

    @property
    def changes_inputs(self) -> bool:
        """Whether images that a run receives may differ with this field, under the same names."""
        is_of_data = self.path.startswith("data.") and self.role == "setting"
        return is_of_data and not self.per_experiment and not self.selects_only

    def check(self, path: str, value: Any) -> None:
        """Checks a value of this field.

        Args:
            path: full path of the field, for the message.
            value: a value of the field's type.

        Raises:
            UserError: the value is outside the interval or not among the choices.
        """
        if not self.allowed:
            return
        limit = Interval(self.allowed) if isinstance(self.allowed, str) else OneOf(self.allowed)
        if problem := limit.find_problem(value):
            raise UserError(f"{path}: {problem}.")
