"""The model behind docs/scaling.md, compared with small cases by hand."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "benchmarks" / "scaling_model.py"


@pytest.fixture(scope="module")
def model():
    """Loads the module from its file, because benchmarks/ is not a package."""
    spec = importlib.util.spec_from_file_location("scaling_model", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def chip(model):
    """A chip that reaches 200 FLOP/s and 100 bytes/s; four on a switch, more over a network."""
    levels = (
        model.Switched(4, egress=10.0, hop=1.0, is_tree=False),
        model.Switched(64, egress=2.0, hop=3.0, is_tree=True),
    )
    return model.Chip(
        "chip", 200 / model.ARITHMETIC, 100 / model.MEMORY, levels, base=0.5, launch=0.25
    )


@pytest.fixture
def work(model):
    return model.Work(1.0, model.Line(0.0, 400.0), model.Line(300.0, 50.0), (80,), kernels=8)


@pytest.mark.parametrize(
    ("chips", "expected"),
    [
        (1, 0.0),
        (2, 0.5 + 2 * 1 / 2 * 80 / 10 + 2 * 1),
        (4, 0.5 + 2 * 3 / 4 * 80 / 10 + 2 * 3),
        # Each of the four sums a quarter with its three counterparts in other nodes.
        (16, 0.5 + 2 * 3 / 4 * 80 / 10 + 2 * 3 + 2 * 3 / 4 * 20 / 2 + 2 * 2 * 3),
    ],
)
def test_all_reduce_passes_all_levels_both_ways(model, chip, chips, expected):
    assert model.all_reduce_seconds(chip, 80, chips) == pytest.approx(expected)


def test_torus_sends_along_all_axes_and_both_ways_on_rings(model):
    torus = model.Torus(size=256, axes=2, link=10.0, ring_from=16, hop=1.0)
    assert [torus.shape(chips) for chips in (1, 2, 4, 8, 256)] == [
        (1, 1), (1, 2), (2, 2), (2, 4), (16, 16)
    ]  # fmt: skip
    assert math.prod(torus.shape(128)) == 128
    assert [torus.bandwidth(chips) for chips in (2, 4, 128, 256)] == [10.0, 20.0, 30.0, 40.0]
    assert [torus.latency(chips) for chips in (2, 8, 256)] == [2.0, 6.0, 32.0]
    cube = model.Torus(size=8192, axes=3, link=1.0, ring_from=4, hop=1.0)
    assert [cube.shape(chips) for chips in (8, 64, 1024)] == [(2, 2, 2), (4, 4, 4), (8, 8, 16)]


def test_slower_of_arithmetic_and_memory_limits_a_chip(model, chip, work):
    # 400 b / 200 and (300 + 50 b) / 100 are equal at two images.
    assert model.compute_seconds(chip, work, 1) == pytest.approx(3.5)
    assert model.compute_seconds(chip, work, 2) == pytest.approx(4.0)
    assert model.compute_seconds(chip, work, 10) == pytest.approx(20.0)
    assert model.overhead_seconds(chip, work, 1) == pytest.approx(8 * 0.25)
    assert model.overhead_seconds(chip, work, 2) == pytest.approx(8 * 0.25 + 10.5)


def test_strong_and_weak_efficiency(model, chip, work):
    alone, shared = 8 * 2 + 2, 4 * 2 + 2 + 10.5
    assert model.strong_efficiency(chip, [work], 8, 1) == 1
    assert model.strong_efficiency(chip, [work], 8, 2) == pytest.approx(alone / (2 * shared))
    assert model.strong_efficiency(chip, [work], 8, 16) is None
    assert model.weak_efficiency(chip, [work], 8, 2) == pytest.approx(alone / (alone + 10.5))


def test_phases_are_weighted_by_their_share_of_the_updates(model, chip, work):
    other = model.Work(0.75, work.flops, work.bytes, (), kernels=0)
    phases = [model.Work(0.25, work.flops, work.bytes, work.all_reduces, work.kernels), other]
    assert model.step_seconds(chip, phases, 10, 2) == pytest.approx(20 + 0.25 * (2 + 10.5))


def test_critical_images_make_computing_half_of_the_step(model, chip, work):
    # On one chip two seconds of kernels, which even one image exceeds; on two 12.5: 2 b >= 12.5.
    assert model.critical_images(chip, [work], 1) == 1
    assert model.critical_images(chip, [work], 2) == 7
    for chips in (4, 16, 64):
        images = model.critical_images(chip, [work], chips)
        overhead = model.overhead_seconds(chip, work, chips)
        assert model.compute_seconds(chip, work, images) >= overhead
        assert model.compute_seconds(chip, work, images - 1) < overhead


def test_line_through_the_ends_and_error_of_the_middle(model):
    line, off = model.fit_line({2: 7.0, 4: 11.0, 8: 19.0})
    assert (line.fixed, line.each, off) == (3.0, 2.0, 0.0)
    assert model.fit_line({2: 7.0, 4: 10.0, 8: 19.0})[1] == pytest.approx(0.1)


def test_published_chips_have_plausible_magnitudes(model):
    """A wrong unit would be a factor of 8 or 1,000."""
    for chip in model.CHIPS:
        assert 1e14 < chip.peak < 1e15, chip.name
        assert 5e11 < chip.memory < 5e12, chip.name
        for level in chip.levels:
            assert 3e9 <= level.bandwidth(min(level.size, 256)) < 1e12, chip.name
