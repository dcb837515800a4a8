"""Checkpoints of a run. The only module that imports Orbax.

A checkpoint has three items: `variables` (everything that scoring needs), `training` (step, seed,
and optimiser state), and `digests` of every array in the other two. Orbax writes to a temporary
folder and renames it when it is complete: a run that is killed during a save resumes from the
checkpoint before it. Orbax does not notice a flipped bit in an array, so the digests are compared
at every read.
"""

import contextlib
import errno
import logging
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxad.errors import RunError, UserError
from jaxad.storage import array_digests, io_errors
from jaxad.storage.paths import check_name, take_folders_literally
from jaxad.types import Tree

with io_errors.late_errors_dropped():  # it logs when it is imported
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

logger = logging.getLogger(__name__)

#: The metric of the best checkpoint; lower is better.
VALIDATION_LOSS = "validation_loss"
_validation_loss = operator.itemgetter(VALIDATION_LOSS)

_DIGESTS = "digests"


class _Damaged(UserError):
    """A damaged checkpoint; the message is only the reason."""


class _Manager(ocp.CheckpointManager):
    """A CheckpointManager that opens a folder even if the metrics of a checkpoint are damaged."""

    def metrics(self, step: int) -> Any:
        """Returns the metrics of a step; None if they are missing or damaged."""
        try:
            return super().metrics(step)
        except (OSError, ValueError):
            return None


class Checkpoints:
    """The checkpoints in a folder: the last few, and the best by validation loss.

    A context manager; leaving it waits for saves in progress.
    """

    def __init__(self, folder: Path, *, keep_last: int = 1, read_only: bool = False):
        """Opens a folder, in which the newest `keep_last` checkpoints and the best one are kept.

        If it is `read_only`, nothing is ever created, cleaned, renamed, or deleted.

        Raises:
            UserError: the folder cannot be read, or cannot be written.
        """
        policies = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_last),
                checkpoint_managers.BestN(get_metric_fn=_validation_loss, reverse=True, n=1),
            ]
        )
        take_folders_literally()
        check_name(folder, "checkpoints in")
        if folder.exists() and not folder.is_dir():  # Orbax would find no checkpoints
            raise UserError(f"checkpoints in '{folder}': not a folder; move the file away.")
        self._folder = folder
        self._read_only = read_only
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(io_errors.late_errors_dropped())
        try:
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True)
            self._manager = _Manager(
                folder.absolute(),
                item_names=("variables", "training", _DIGESTS),
                options=ocp.CheckpointManagerOptions(
                    create=False,
                    read_only=read_only,
                    cleanup_tmp_directories=not read_only,
                    preservation_policy=None if read_only else policies,
                    best_fn=_validation_loss,
                    best_mode="min",
                    enable_async_checkpointing=not read_only,
                    multiprocessing_options=_only_this_process(),
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            self._quiet.close()
            raise UserError(
                f"checkpoints in '{folder}' cannot be opened ({io_errors.reason(error)}); "
                "make the folder readable."
                + ("." if read_only else " and written, or choose another --workdir.")
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_failed = kind is not None
        with self._quiet:
            try:
                with self._saving():
                    self._manager.close()
            except RunError:
                is_failed = True
                if kind is None:  # otherwise the error that ended the block is reported
                    raise
            finally:
                if is_failed:
                    io_errors.await_late_errors()

    @property
    def last_step(self) -> int | None:
        """The step of the newest complete checkpoint, damaged or not; None if there is none."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """The step with the smallest validation loss among those kept; None if there is none.

        A checkpoint whose metrics are damaged is not considered; a warning says so.
        """
        losses: dict[int, float] = {}
        for step in self.steps:
            try:
                metrics = self._read_digests(step)["metrics"]
            except _Damaged as damage:
                logger.warning(
                    f"warning: checkpoint '{self._path(step)}' is damaged ({damage}) and cannot "
                    "become the best."
                )
                continue
            if metrics and VALIDATION_LOSS in metrics:
                losses[step] = metrics[VALIDATION_LOSS]
        return min(losses, key=lambda step: (losses[step], -step), default=None)

    def save(
        self, step: int, variables: Tree, training: Tree, metrics: Mapping[str, float]
    ) -> None:
        """Starts a save; returns once the arrays are copied, so that they may be donated.

        The first checkpoint in a folder is read back before this returns, so that a file system
        that loses or renames files ends a run at its first checkpoint, not after its last.

        Args:
            step: updates done; larger than that of every checkpoint in the folder.
            variables: everything that scoring needs.
            training: everything else that training needs.
            metrics: with `VALIDATION_LOSS` the checkpoint may become the best; may be empty.

        Raises:
            RunError: this save or the one before it failed, because the disk is full for example;
                or the checkpoint cannot be read back.
        """
        if not self._folder.is_dir():  # Orbax would make a new one
            raise self._missing_folder()
        is_first = self.last_step is None
        trees = {"variables": variables, "training": training}
        digests = {name: array_digests.digest_tree(tree) for name, tree in trees.items()}
        sealed = array_digests.seal({**digests, "metrics": dict(metrics) or None})
        with self._saving():
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                    **{_DIGESTS: ocp.args.JsonSave(sealed)},
                ),
                metrics=dict(metrics) or None,
            )
        if not saved:  # Orbax does not save a step before its newest one
            raise RunError(
                f"checkpoint {step} was not saved in '{self._folder}', which already holds step "
                f"{self.last_step}; choose another --workdir."
            )
        if is_first:
            self.wait()
            self._check_saved(step, trees)

    def _check_saved(self, step: int, trees: Mapping[str, Tree]) -> None:
        """Raises a RunError if a checkpoint cannot be read back as it was saved."""
        try:
            with Checkpoints(self._folder, read_only=True) as again:
                if step not in again.steps:
                    raise _Damaged("it is missing")
                again._restore(step, trees)
        except _Damaged as damage:
            raise RunError(
                f"checkpoint '{self._path(step)}' was saved but cannot be read back ({damage}); "
                "the run stops. Choose a --workdir on another file system."
            ) from damage

    @property
    def is_saving(self) -> bool:
        """Whether a save is in progress, which also deletes older checkpoints at its end."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Returns when every save is complete on disk; raises a RunError if one failed."""
        with self._saving():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Raises errors of a save as a RunError of one line."""
        try:
            yield
        # TensorStore raises ValueError for everything that goes wrong with files.
        except (ValueError, OSError) as error:
            is_missing = io_errors.error_number(error) == errno.ENOENT
            if is_missing or "does not exist" in str(error) or not self._folder.is_dir():
                raise self._missing_folder() from error
            raise RunError(
                f"a checkpoint could not be saved in '{self._folder}' "
                f"({io_errors.reason(error)}); what was saved before is intact. "
                f"{io_errors.remedy(io_errors.error_number(error))}."
            ) from error

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _missing_folder(self) -> RunError:
        return RunError(
            f"a checkpoint could not be saved in '{self._folder}': the folder was deleted, moved "
            "or renamed while the run was writing. Put it back under its name, and the same "
            "command resumes from what it holds; otherwise, it starts from the beginning."
        )

    def restore_variables(self, step: int, like: Tree) -> Tree:
        """Reads the variables of a step as NumPy arrays of the shapes and dtypes of `like`.

        Raises:
            UserError: the checkpoint is damaged, cannot be read, or has other arrays.
        """
        try:
            return self._restore(step, {"variables": like})["variables"]
        except _Damaged as damage:
            raise UserError(
                f"checkpoint '{self._path(step)}' is damaged ({damage}); choose another of the "
                f"steps {self.steps}."
            ) from damage

    def restore_newest(self, variables: Tree, training: Tree = None) -> tuple[int, Tree, Tree]:
        """Reads the newest undamaged step, its variables, and, if wanted, its training state.

        The arguments have the expected shapes and dtypes; without `training`, that state is not
        read. Newer, damaged checkpoints are reported in warnings and, unless the folder is
        read-only, renamed so that they no longer count.

        Raises:
            UserError: all are damaged (none is renamed then), or one cannot be read or has other
                arrays.
        """
        likes = {"variables": variables}
        if training is not None:
            likes["training"] = training
        damages: dict[int, _Damaged] = {}
        for step in reversed(self.steps):
            try:
                items = self._restore(step, likes)
            except _Damaged as damage:
                damages[step] = damage
                continue
            for bad, reason in damages.items():
                self._skip(bad, reason, step)
            return step, items["variables"], items.get("training")
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damages.items())
        raise UserError(
            f"every checkpoint in '{self._folder}' is damaged ({reasons}); put a copy back, or "
            "move the folder away to begin again."
        )

    def _skip(self, step: int, damage: _Damaged, used: int) -> None:
        """Warns that a checkpoint is damaged and, unless the folder is read-only, renames it."""
        path, renamed = self._path(step), ""
        if not self._read_only:
            aside = path.with_name(f"{step}.damaged")
            number = 1
            while aside.exists():
                number += 1
                aside = path.with_name(f"{step}.damaged-{number}")
            path.rename(aside)
            self._manager.reload()
            renamed = f" and set aside as '{aside.name}'"
        logger.warning(
            f"warning: checkpoint '{path}' is damaged ({damage}){renamed}; step {used} is used "
            "instead."
        )

    def _restore(self, step: int, likes: Mapping[str, Tree]) -> Mapping[str, Tree]:
        """Reads items of a step as NumPy arrays.

        Raises:
            _Damaged: they are not what was saved.
            UserError: they cannot be read, or have shapes or dtypes other than those of `likes`.
        """
        digests = self._read_digests(step)
        for name, like in likes.items():
            kinds = {path: kind for path, (kind, _) in digests[name].items()}
            difference = array_digests.kind_difference(kinds, array_digests.tree_kinds(like))
            if difference:
                raise UserError(
                    f"checkpoint '{self._path(step)}' does not fit its config ({difference}); use "
                    "the version of jaxad that wrote it, or move this one folder away to use an "
                    "older one."
                )
        # With NumPy arrays, Orbax restores to the host.
        templates = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(likes))
        items = self._read(
            step, {name: ocp.args.StandardRestore(tree) for name, tree in templates.items()}
        )
        for name in likes:
            path = array_digests.first_changed(digests[name], items[name])
            if path is not None:
                raise _Damaged(f"{name}{path} is not what was saved")
        return items

    def _read_digests(self, step: int) -> Any:
        """Reads the digests and metrics that were saved with a step.

        Raises:
            _Damaged: they are missing, cannot be read, or differ from the step's metrics.
        """
        if not (self._path(step) / _DIGESTS).exists():
            raise _Damaged(f"it has no {_DIGESTS}")
        sealed = self._read(step, {_DIGESTS: ocp.args.JsonRestore()})[_DIGESTS]
        digests = array_digests.unseal(sealed)
        if digests is None:
            raise _Damaged(f"its {_DIGESTS} are not what was saved")
        if self._manager.metrics(step) != digests["metrics"]:
            raise _Damaged("its metrics are not what was saved")
        return digests

    def _read(self, step: int, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Restores items with Orbax.

        Raises:
            _Damaged: a file is damaged or missing.
            UserError: the system does not let them be read.
        """
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except MemoryError:
            raise
        except Exception as error:  # a damaged file may raise anything
            reason, number = io_errors.reason(error), io_errors.error_number(error)
        # Outside of the block the error is freed, and what Orbax's tasks hold with it.
        io_errors.await_late_errors()
        if number in (None, *io_errors.LOST):
            raise _Damaged(reason)
        raise UserError(
            f"checkpoint '{self._path(step)}' cannot be read ({reason}); remove the cause, then "
            "run the same command again."
        )


def _only_this_process() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax coordinate with no other process: each one has the whole state."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process-{index}"
    )
