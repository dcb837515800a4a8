"""The model beside the trivial scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.report.figures import ComparedScore

#: Names of the trivial scores, for the table and the figure of it.
TRIVIAL = {
    "mean": "Mean intensity",
    "standard_deviation": "Standard deviation",
    "area": "Area of the foreground",
    "total_variation": "Total variation",
    "pixel_gaussian": "Gaussian at each pixel",
}


def compared_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model, then the trivial scores, best first: `raw`, `corrected` and, to draw, `score`."""

    def triple(metric: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
        if metric is None or metric["value"] is None:
            return None
        value, low, high = metric["value"], metric.get("low"), metric.get("high")
        return (value, value if low is None else low, value if high is None else high)

    def row(name: str, scores: Mapping[str, Any], is_model: bool) -> dict[str, Any]:
        raw, corrected = scores.get("auroc"), scores.get("auroc_position_corrected")
        if name.startswith("pca_"):
            name = f"PCA residual, {name.removeprefix('pca_')} components"
        name = TRIVIAL.get(name, name.replace("_", " "))
        score = ComparedScore(name, is_model, triple(raw), triple(corrected))
        return {"raw": raw, "corrected": corrected, "score": score}

    def rank(row: Mapping[str, Any]) -> float:
        return -(row["score"].corrected or row["score"].raw or (-math.inf,))[0]

    trivial = [row(name, scores, False) for name, scores in metrics["trivial"].items()]
    return [row("The model", metrics, True), *sorted(trivial, key=rank)]


def lead(scores: Sequence[ComparedScore]) -> dict[str, Any] | None:
    """The model's AUROC and the best trivial score's, corrected where the model's is."""
    kind = "corrected" if scores[0].corrected else "raw"
    pairs = [(getattr(score, kind), score.name) for score in scores]
    rivals = [pair for pair in pairs[1:] if pair[0]]
    if not pairs[0][0] or not rivals:
        return None
    theirs, name = max(rivals)
    return {"kind": kind, "ours": pairs[0][0], "theirs": theirs, "name": name}
