"""Checkpoints of a run. The only importer of Orbax.

A checkpoint has three items: `variables` (all that scoring needs), `training` (step, seed and
optimiser state) and `digests` of every array in the other two. Orbax writes into a temporary folder
and renames it when it is complete, so that a run killed inside a save finds the checkpoint before
it. It does not notice a flipped bit in an array: the digests are compared whenever one is read.
"""

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxad.errors import RunError, UserError
from jaxad.storage import array_digests, io_errors
from jaxad.storage.paths import check_name, take_folders_literally
from jaxad.types import Tree

logger = logging.getLogger(__name__)

#: The metric by which the best checkpoint is kept: lower is better.
VALIDATION_LOSS = "validation_loss"

_DIGESTS = "digests"


class _Damaged(UserError):
    """A checkpoint that cannot be used; the message is the reason alone."""


class _Manager(ocp.CheckpointManager):
    """Orbax's, to which one checkpoint whose metrics are damaged is no reason to open none."""

    def metrics(self, step: int) -> Any:
        """Those of a step; None where there are none: it is no candidate for the best."""
        try:
            return super().metrics(step)
        except (OSError, ValueError):
            return None


def _as_template(tree: Tree) -> Tree:
    """NumPy arrays of the tree's shapes and types: tells Orbax to restore to the host."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Drops what Orbax logs: every phase of every save, defaults, and the errors that it raises.

    absl gives every record its own file as the place, so the callers are looked at.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if "orbax" in frame.f_globals.get("__name__", "").split("."):
            return False
        frame = frame.f_back
    return True


class Checkpoints:
    """The checkpoints in one folder: the last few and the best by validation loss.

    A context manager; leaving it waits for saves under way.
    """

    def __init__(self, folder: Path, *, keep_last: int = 1, read_only: bool = False):
        """Opens a folder.

        Args:
            folder: where the checkpoints are.
            keep_last: how many of the newest to keep beside the best.
            read_only: for scoring; never creates, cleans, renames or deletes anything.

        Raises:
            UserError: it cannot be read, or not be written.
        """
        logging.getLogger("absl").addFilter(_is_not_of_orbax)
        policies = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_last),
                checkpoint_managers.BestN(get_metric_fn=_validation_loss, reverse=True, n=1),
            ]
        )
        take_folders_literally()
        check_name(folder, "checkpoints in")
        if folder.exists() and not folder.is_dir():  # Orbax finds no checkpoints there
            raise UserError(f"checkpoints in '{folder}': is no folder; move it away.")
        self._folder = folder
        self._read_only = read_only
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(io_errors.without_echoes())
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
                    multiprocessing_options=_this_process_alone(),
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            self._quiet.close()
            raise UserError(
                f"checkpoints in '{folder}' cannot be opened ({io_errors.reason(error)}); "
                "make it a folder that can be read"
                + ("." if read_only else " and written, or choose another --workdir.")
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._quiet:
            try:
                with self._saving():
                    self._manager.close()
            except RunError:
                if kind is None:  # else what ended the block is told
                    raise
            finally:
                if kind is not None:
                    io_errors.await_echoes()
                    self._quiet.pop_all()  # what fails later stays silent

    @property
    def last_step(self) -> int | None:
        """The newest complete checkpoint, damaged or not; None where there is none."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Every complete checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """The checkpoint of least validation loss among those kept; None where there is none.

        One whose metrics are not what was saved is no candidate, which a line on stderr says.
        """
        losses: dict[int, float] = {}
        for step in self.steps:
            try:
                noted = self._noted(step)
            except _Damaged as damage:
                logger.warning(
                    f"checkpoint '{self._folder / str(step)}' is damaged ({damage}): it is no "
                    "candidate for the best."
                )
                continue
            metrics = self._manager.metrics(step) if noted is None else noted["metrics"]
            if metrics and VALIDATION_LOSS in metrics:
                losses[step] = metrics[VALIDATION_LOSS]
        return min(losses, key=lambda step: (losses[step], -step), default=None)

    def save(
        self, step: int, variables: Tree, training: Tree, metrics: Mapping[str, float]
    ) -> None:
        """Starts to save; returns once the arrays are copied, so that they may be donated.

        Without metrics (a run told to stop does not validate first) it is no candidate for best.
        The first checkpoint in a folder is read back before this returns: where a file is missing,
        short or under another name, a run ends at its first checkpoint and not after its last.

        Raises:
            RunError: this save, or the one before it, failed: the disk is full, say. Or what was
                saved cannot be read back.
        """
        if not self._folder.is_dir():  # Orbax would make another one
            raise self._gone()
        is_first = self.last_step is None
        trees = {"variables": variables, "training": training}
        noted = {name: digests.of_tree(tree) for name, tree in trees.items()}
        sealed = digests.seal({**noted, "metrics": dict(metrics) or None})
        with self._saving():
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                    **{_DIGESTS: ocp.args.JsonSave(sealed)},
                ),
                metrics=dict(metrics) or None,
            )
        if not saved:  # Orbax does not save a step before its newest one.
            raise RunError(
                f"checkpoint {step} was not saved in '{self._folder}', which holds step "
                f"{self.last_step}."
            )
        if is_first:
            self.wait()
            self._check_saved(step, trees)

    def _check_saved(self, step: int, trees: Mapping[str, Tree]) -> None:
        """Raises a RunError where a checkpoint does not come back as it was saved."""
        try:
            with Checkpoints(self._folder, read_only=True) as again:
                if step not in again.steps:
                    raise _Damaged("it is not there")
                again._restore(step, trees)
        except _Damaged as damage:
            raise RunError(
                f"checkpoint '{self._folder / str(step)}' was saved and cannot be read back "
                f"({damage}); the run stops. Choose a --workdir on another file system."
            ) from damage

    def wait(self) -> None:
        """Until every save is complete on disk.

        Raises:
            RunError: one failed.
        """
        with self._saving():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        # TensorStore raises ValueError for all that goes wrong with files.
        except (ValueError, OSError) as error:
            is_missing = io_errors.error_number(error) == errno.ENOENT
            if is_missing or "does not exist" in str(error) or not self._folder.is_dir():
                raise self._gone() from error
            raise RunError(
                f"a checkpoint could not be saved in '{self._folder}' "
                f"({io_errors.reason(error)}); what was saved before is whole. "
                f"{io_errors.remedy(io_errors.error_number(error))} from there."
            ) from error

    def _gone(self) -> RunError:
        return RunError(
            f"a checkpoint could not be saved in '{self._folder}': the folder was deleted, moved "
            "or renamed while the run was writing. Put it back under its name, and the same "
            "command goes on from what it holds; without it, the same command begins anew."
        )

    def restore_variables(self, step: int, like: Tree) -> Tree:
        """The variables of a step as NumPy arrays; `like` gives their shapes and types.

        Raises:
            UserError: it is damaged, cannot be read, or does not fit.
        """
        try:
            return self._restore(step, {"variables": like})["variables"]
        except _Damaged as damage:
            raise UserError(
                f"checkpoint '{self._folder / str(step)}' is damaged ({damage}); there are steps "
                f"{self.steps}: use another."
            ) from damage

    def restore_newest_variables(self, like: Tree) -> tuple[int, Tree]:
        """The newest step that is undamaged and its variables; see `restore_newest`."""
        step, found = self._restore_newest({"variables": like})
        return step, found["variables"]

    def restore_newest(self, variables: Tree, training: Tree) -> tuple[int, Tree, Tree]:
        """The newest step that is undamaged, its variables and its training state.

        Damaged ones that are newer are told on stderr and, unless the folder is read only, set
        aside: renamed so that they count no more.

        Args:
            variables: gives shapes and types.
            training: gives shapes and types.

        Raises:
            UserError: none is undamaged (nothing is set aside then), one cannot be read or does
                not fit.
        """
        step, found = self._restore_newest({"variables": variables, "training": training})
        return step, found["variables"], found["training"]

    def _restore_newest(self, likes: Mapping[str, Tree]) -> tuple[int, Mapping[str, Tree]]:
        damages: dict[int, _Damaged] = {}
        for step in reversed(self.steps):
            try:
                found = self._restore(step, likes)
            except _Damaged as damage:
                damages[step] = damage
                continue
            for bad, reason in damages.items():
                self._pass_over(bad, reason, step)
            return step, found
        told = "; ".join(f"step {step}: {reason}" for step, reason in damages.items())
        raise UserError(
            f"every checkpoint in '{self._folder}' is damaged ({told}); put a copy back, or move "
            "the folder away to begin anew."
        )

    def _pass_over(self, step: int, damage: _Damaged, instead: int) -> None:
        """Tells that a checkpoint is damaged, and sets it aside where that is ours to do."""
        path, told = self._folder / str(step), ""
        if not self._read_only:
            aside = path.with_name(f"{step}.damaged")
            number = 1
            while aside.exists():
                number += 1
                aside = path.with_name(f"{step}.damaged-{number}")
            path.rename(aside)
            self._manager.reload()
            told = f" and set aside as '{aside.name}'"
        logger.warning(
            f"warning: checkpoint '{path}' is damaged ({damage}){told}; step {instead} is taken "
            "instead."
        )

    def _restore(self, step: int, likes: Mapping[str, Tree]) -> Mapping[str, Tree]:
        """Items of a step as NumPy arrays.

        Raises:
            _Damaged: they are not what was saved.
            UserError: they cannot be read, or are of other shapes than `likes`.
        """
        noted = self._noted(step)
        for name, like in likes.items():
            difference = digests.kind_difference(noted[name], like)
            if difference:
                raise self._misfit(step, difference)
        arguments = {
            name: ocp.args.StandardRestore(_as_template(like)) for name, like in likes.items()
        }
        found = self._read(step, arguments)
        for name in likes:
            place = digests.first_changed(noted[name], found[name])
            if place is not None:
                raise _Damaged(f"{name}{place} is not what was saved")
        return found

    def _noted(self, step: int) -> Any:
        """What was noted of a step when it was saved.

        Raises:
            _Damaged: it is gone or cannot be read, or the step has other metrics.
        """
        if not (self._folder / str(step) / _DIGESTS).exists():
            raise _Damaged(f"it has no {_DIGESTS}")
        found = self._read(step, {_DIGESTS: ocp.args.JsonRestore()})[_DIGESTS]
        noted = digests.unseal(found)
        if noted is None:
            raise _Damaged(f"its {_DIGESTS} are not what was saved")
        if self._manager.metrics(step) != noted["metrics"]:
            raise _Damaged("its metrics are not what was saved")
        return noted

    def _read(self, step: int, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Items as Orbax restores them.

        Raises:
            _Damaged: it does not.
            UserError: it may not, or the system has no room for it.
        """
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except MemoryError:
            raise
        except Exception as error:  # a damaged file makes anything of Orbax
            reason, number = io_errors.reason(error), io_errors.error_number(error)
        # The error is forgotten by now, and with it what Orbax's tasks hold.
        io_errors.await_echoes()
        if number in (None, *io_errors.LOST):
            raise _Damaged(reason)
        raise UserError(
            f"checkpoint '{self._folder / str(step)}' cannot be read ({reason}); remove the cause, "
            "then run the same command again."
        )

    def _misfit(self, step: int, reason: str) -> UserError:
        return UserError(
            f"checkpoint '{self._folder / str(step)}' does not fit its config ({reason}); use the "
            "version of jaxad that wrote it, or move this one folder away to use an older one."
        )


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
    """Every process has the whole state: the first one saves, each reads by itself."""
    mine = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"process-{mine}"
    )


def _validation_loss(metrics: Mapping[str, float]) -> float:
    return metrics[VALIDATION_LOSS]
