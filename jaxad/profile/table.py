"""A profile as text."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxad.profile.profiling import PhaseProfile, Profile, Times

UNKNOWN = "not available"
#: Kinds and layers that are listed; the others are one line.
_LISTED = 8


def format_profile(profile: Profile) -> list[str]:
    """Returns the lines of a table with aligned columns."""
    about = profile.about
    rows: list[tuple[str, str]] = [
        ("model", f"{about['model']}, {profile.parameters:,} parameters"),
        ("images", f"{' x '.join(map(str, about['image_shape']))}, batch {about['batch_size']}"),
        (
            "devices",
            f"{about['devices']} x {about['device']} ({about['platform']}), "
            f"parallel={about['parallel']}, {about['precision']}, jax {about['jax']}",
        ),
        (
            "measured peak",
            f"{_rate(profile.peak.flops_per_second)} (matrix product of {profile.peak.rows:,} rows "
            "on each device)",
        ),
        ("images/s, whole run", f"{profile.images_per_second:,.1f}"),
    ]
    for phase in profile.phases:
        rows += [("", ""), *_phase_rows(phase, about["updates"])]
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}".rstrip() for name, value in rows]


def _phase_rows(phase: PhaseProfile, updates: int) -> Iterator[tuple[str, str]]:
    costs = phase.costs
    at_once = f", {phase.at_once} at once" if phase.at_once > 1 else ""
    yield "updates of", f"{', '.join(phase.networks)} ({phase.updates:,} of {updates:,}{at_once})"
    yield "step", _spread(phase.step)
    yield "input wait", _spread(phase.input_wait)
    yield "host to device", _spread(phase.host_to_device)
    yield "images/s", f"{phase.images_per_second:,.1f}"
    yield "compile", f"{phase.compile_seconds:.1f} s"
    yield "FLOPs, each device", _known(costs.flops, lambda flops: f"{flops / 1e9:,.3f} G")
    yield "bytes accessed, each device", _known(costs.bytes_accessed, _bytes)
    reduced = f"{_bytes(sum(costs.all_reduces))} in {len(costs.all_reduces)}"
    yield "all-reduced, each device", reduced
    yield "memory, each device", _known(costs.peak_memory, _bytes)
    yield "achieved", _known(phase.achieved, _rate)
    yield "of the measured peak", _known(phase.fraction_of_peak, lambda part: f"{part:.1%}")
    yield from _share_rows("time by kind", phase.kinds)
    yield from _share_rows("time by layer", phase.layers)


def _share_rows(title: str, shares: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    if not shares:
        yield title, UNKNOWN
        return
    listed: Sequence[tuple[str, float]] = list(shares.items())[:_LISTED]
    rest = sum(shares.values()) - sum(share for _, share in listed)
    if len(shares) > _LISTED:
        listed = [*listed, (f"{len(shares) - _LISTED} others", rest)]
    for number, (name, share) in enumerate(listed):
        yield ("" if number else title), f"{share:6.1%}  {name}"


def _known(value: int | float | None, text: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else text(value)


def _spread(times: Times) -> str:
    median, least, most = (1e3 * value for value in (times.median, times.min, times.max))
    return f"{median:.3g} ms ({least:.3g} to {most:.3g})"


def _rate(flops_per_second: float) -> str:
    return f"{flops_per_second / 1e9:,.3g} GFLOP/s"


def _bytes(count: int | float) -> str:
    return f"{count / 1e6:,.3f} MB"
