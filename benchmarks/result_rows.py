"""The rows of the table of `versus_torch.py`, and the file that keeps them."""

import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The sides, in the order of the table's columns.
COLUMNS = ("PyTorch eager", "PyTorch compiled", "jaxad")


def mean_rate(rates: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """Returns images per second of a run whose kinds of updates have these rates and shares."""
    return 1 / sum(share / rates[task] for task, share in shares.items())


@dataclasses.dataclass
class Row:
    """A row of the table.

    Attributes:
        name: task and unit.
        higher: whether more is better.
        values: side -> its value in each repeat; empty if the side failed or has none.
        failed: side -> why it failed.
        void: why the row is void, or "".
    """

    name: str
    higher: bool
    values: dict[str, list[float]]
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    void: str = ""

    def text(self) -> str:
        """Returns the row: medians, and the ratios of jaxad to the better PyTorch side."""
        measured = {side: values for side, values in self.values.items() if values}
        medians = {side: statistics.median(values) for side, values in measured.items()}
        largest = max(medians.values(), default=0.0)
        digits = 2 if largest < 10 else 1 if largest < 100 else 0
        cells = [
            f"{medians[side]:,.{digits}f}" if side in medians else
            "fails" if side in self.failed else "" for side in COLUMNS
        ]  # fmt: skip
        best = max if self.higher else min
        rivals = [side for side in medians if side != "jaxad"]
        if rivals and "jaxad" in medians:
            rival = best(rivals, key=medians.__getitem__)
            pairs = zip(self.values["jaxad"], self.values[rival], strict=True)
            ratios = [a / b if self.higher else b / a for a, b in pairs]
            spread = (statistics.median(ratios), min(ratios), max(ratios))
            cells += [f"{ratio:.2f}" for ratio in spread]
        else:
            cells += [""] * 3
        return f"| {self.name}{', void' if self.void else ''} | {' | '.join(cells)} |"

    def notes(self, system: str) -> list[str]:
        """Returns why sides failed, and why the row is void."""
        reasons = [f"{side} fails: {reason}" for side, reason in self.failed.items()]
        reasons += [f"void: {self.void}"] if self.void else []
        return [f"- {system}, {self.name}: {reason}" for reason in reasons]


class Output:
    """The rows of a run as lines of JSON, from which an interrupted run continues."""

    def __init__(self, path: str):
        self._path = Path(path) if path else None
        self._records: list[dict[str, Any]] = []
        if self._path and self._path.exists():
            # The last line of a run that was killed may be incomplete.
            *lines, rest = self._path.read_text(encoding="utf-8").split("\n")
            self._records = [json.loads(line) for line in lines]
            if rest:
                self._path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def done(self, settings: dict[str, Any]) -> tuple[dict[str, Row], str]:
        """Returns the rows with these settings that are neither void nor lack a side that failed.

        If these are all rows of the system, also returns the heading that `write` was given as
        `complete`, else "".
        """
        settings = json.loads(json.dumps(settings))
        records = [record for record in self._records if record["settings"] == settings]
        rows = [Row(**record["row"]) for record in records if "row" in record]
        kept = {row.name: row for row in rows if not (row.void or row.failed)}
        return kept, next((record["complete"] for record in records if "complete" in record), "")

    def write(self, settings: dict[str, Any], **record: Any) -> None:
        """Appends a record."""
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"settings": settings, **record}) + "\n")
