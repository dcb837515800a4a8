"""The numpy side of the embedded data: template, subjects, plan and anomalies."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from jaxad.data.synthetic import anomalies, fields, photographs, plan, sampling, subject, template
from jaxad.data.synthetic.fields import SubjectKey
from jaxad.data.synthetic.slices import SPLITS, make_slices
from jaxad.errors import UserError

SIZE = 64
OBJECTS, LESIONS = SPLITS.index("test_objects"), SPLITS.index("test_lesions")
PIXEL_MM = 200 / SIZE  # The field of view is 200 mm.


@pytest.fixture(scope="module")
def normal():
    return subject.make_subject(SubjectKey(0, 0, 0), SIZE)


@pytest.fixture(scope="module")
def with_objects():
    return [make_slices(0, "test_objects", number, SIZE) for number in range(3)]


@pytest.fixture(scope="module")
def with_lesions():
    return [make_slices(0, "test_lesions", number, SIZE) for number in range(6)]


def test_no_worker_imports_tensorflow_or_jax():
    code = (
        "import sys, jaxad.data.synthetic.slices as s; s.make_slices(0, 'test_objects', 0, 16);"
        "names = ('tensorflow_datasets', 'tensorflow', 'jax', 'nilearn', 'sklearn');"
        "print([name for name in names if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_missing_package_or_file_is_named_with_the_remedy(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no_such_package"):
        template.package_folder("no_such_package")
    monkeypatch.setattr(template, "package_folder", lambda name: tmp_path)
    with pytest.raises(UserError, match="mni_icbm152_t1.*reinstall"):
        template.template_path("t1")
    monkeypatch.setattr(photographs, "package_folder", lambda name: tmp_path)
    photographs.load_photograph.cache_clear()
    with pytest.raises(UserError, match="chelsea.png' is missing"):
        photographs.load_photograph("cat")


def test_all_photographs_are_installed_and_show_something():
    for name in photographs.PHOTOGRAPHS:
        picture = photographs.load_photograph(name)
        # The moon is the flattest of them, at .03.
        assert min(picture.shape) == 300 and picture.std() > 0.02, name
        assert picture.min() >= 0 and picture.max() <= 1, name


def test_template_is_smooth_brain_with_a_pull_towards_the_ventricles():
    atlas = template.load_template(SIZE)
    assert not atlas.tissues.values.flags.writeable  # All subjects of a process share it.
    cover, _, grey, white = atlas.tissues.values.T
    pull = atlas.ventricle_pull.values.T
    # MNI (0, -134, -72) is voxel (98, 0, 0): the lateral ventricles lie at about x = +-14 mm,
    # y = -35 mm, z = 18 mm, that is voxel (84 or 112, 99, 90), and hold neither tissue.
    x, y, z = (int(v - o) for v, o in zip((112, 99, 90), atlas.origin, strict=True))
    assert cover[x, y, z] > 0.99
    assert white[x, y, z] + grey[x, y, z] < 0.5
    assert np.sqrt((pull**2).sum(axis=0)).max() <= 1 + 1e-5
    # 8 mm to the outer side of it the pull points back, towards smaller x.
    assert pull[0, (x + 8) // 2, y // 2, z // 2] < -0.2


def test_volumes_are_interpolated_as_scipy_does_where_they_are_relevant():
    generator = np.random.default_rng(0)
    volumes = generator.uniform(size=(3, 7, 8, 9)).astype(np.float32)
    relevant = np.zeros((7, 8, 9), bool)
    relevant[3, 4, 5] = relevant[0, 0, 0] = True
    sampled = sampling.Volumes.interleave(volumes, relevant)
    points = generator.uniform(-3, 12, (3, 20_000)).astype(np.float32)
    inside, values = sampled.sample(points)
    # One voxel is a corner of the cells within 1 of it; those at the border count as irrelevant.
    near = np.all(np.abs(points - np.array([[5], [4], [3]])) < 1, axis=0)
    np.testing.assert_array_equal(inside, np.flatnonzero(near))
    assert len(inside) > 20  # 8 of 15**3 cells: about 47 points
    assert (values[:, 3] == 0).all()  # There is no fourth volume.
    for volume, found in zip(volumes, values.T, strict=False):
        expected = ndimage.map_coordinates(volume, points[::-1, inside], order=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_spline_field_has_unit_deviation_and_is_as_smooth_as_its_knots():
    axis = np.arange(-60.0, 61.0, 3.0)
    draws = [
        fields.SplineField.draw(np.random.default_rng(seed), 12.0).at((axis, axis, axis))
        for seed in range(4)
    ]
    field = np.stack(draws)
    # 4 draws of about 10^3 knots each: the s.d. is known to about 2 %, the mean to .05.
    assert field.std() == pytest.approx(1, abs=0.08)
    assert abs(field.mean()) < 0.1
    # For a cubic B-spline of knot spacing h the s.d. of the slope is
    # sqrt((2/3) / (151/315)) / h = 1.18 / h; a step of h / 4 sees nearly the whole of it.
    slope = np.diff(field, axis=1) / 3.0
    assert slope.std() == pytest.approx(1.18 / 12, rel=0.1)


def test_spline_field_is_a_function_of_place():
    """A finer grid samples the same field, so that a subject is the same at every image size."""
    coarse, fine = np.arange(-50.0, 51.0, 10.0), np.arange(-50.0, 51.0, 5.0)
    field = fields.SplineField.draw(np.random.default_rng(0), 12.0)
    low = field.at((coarse, coarse, coarse))
    np.testing.assert_allclose(low, field.at((fine, fine, fine))[::2, ::2, ::2], rtol=1e-5)
    np.testing.assert_array_equal(field.at((coarse, coarse[::-1], coarse)), low[:, ::-1])
    border = np.array([-100.0, 100.0])  # The corners of the field of view have knots, too.
    assert np.isfinite(field.at((border, border, border))).all()


def test_keys_give_independent_generators():
    keys = itertools.product((0, 1), (0, 1), (0, 1), list(fields.Purpose)[:2], (0, 1))
    firsts = [
        SubjectKey(*key).generator(*purpose).integers(2**62)
        for *key, purpose in ((*key[:3], key[3:]) for key in keys)
    ]
    assert len(set(firsts)) == 2**5
    again = SubjectKey(0, 0, 0).generator(fields.Purpose.SHAPE).integers(2**62)
    assert again == firsts[0]


def test_subject_is_standardised_inside_its_brain(normal):
    image = subject.render(normal)
    inside = image[normal.brain] / 255
    # Mean 0 and s.d. 1 become 1/2 and 1/6; clipping at 3 s.d. takes a little of the s.d.
    assert inside.mean() == pytest.approx(0.5, abs=0.005)
    assert inside.std() == pytest.approx(1 / 6, abs=0.005)
    assert image.shape == (20, SIZE, SIZE) and image.dtype == np.uint8
    assert (image[~normal.brain] == 0).all()
    assert (image[normal.brain] > 0).all()
    # A head of about 140 x 180 mm fills about half of 200 x 200 mm, less at both ends.
    assert 0.3 < normal.brain.mean() < 0.6


def test_anomalies_do_not_change_the_standardisation(normal):
    """Drawing into one slice does not change any other slice."""
    signal = normal.signal.copy()
    signal[4] *= 0.5
    changed, plain = subject.render(normal, signal), subject.render(normal)
    assert (changed[4] != plain[4]).any()
    others = np.arange(20) != 4
    np.testing.assert_array_equal(changed[others], plain[others])


def test_tissues_are_in_the_order_of_a_t1_image(normal):
    """White matter is the brightest and well above the rest."""
    white = normal.signal[normal.white > 0.9]
    rest = normal.signal[normal.brain & (normal.white < 0.1)]
    assert white.mean() > rest.mean() + 0.1
    assert 0.7 < white.mean() < 1.0  # .86 by design, .88 in the template, bias field +-.1


def test_subjects_are_determined_by_their_key():
    first = make_slices(3, "train", 1, SIZE)
    again = make_slices(3, "train", 1, SIZE)
    assert first.images.tobytes() == again.images.tobytes()
    for other in ((4, "train", 1), (3, "train", 2), (3, "val", 1)):
        different = make_slices(*other, SIZE).images
        # Not just other noise (2 % of the white matter's level, some 8 grey values): other heads.
        assert np.abs(different.astype(int) - first.images).mean() > 8, other


def test_a_subject_has_the_same_anatomy_at_every_size(normal):
    large = subject.make_subject(SubjectKey(0, 0, 0), 2 * SIZE)
    pooled = large.signal.reshape(20, SIZE, 2, SIZE, 2).mean(axis=(2, 4))
    other = subject.make_subject(SubjectKey(0, 0, 1), SIZE).signal
    same = np.abs(pooled - normal.signal).mean()
    assert same < 0.2 * np.abs(other - normal.signal).mean()


def test_heads_stay_inside_the_field_of_view():
    for number in range(8):
        brain = subject.make_subject(SubjectKey(0, 0, number), SIZE).brain
        border = brain[:, [0, -1]].sum() + brain[:, :, [0, -1]].sum()
        assert border == 0, number


def test_plan_of_objects_is_balanced_at_every_index():
    slices = np.stack([plan.object_slices(SubjectKey(0, OBJECTS, number)) for number in range(60)])
    np.testing.assert_array_equal(slices.sum(axis=0), 20)  # A third of 60 subjects.
    assert set(slices.sum(axis=1)) == {6, 7}  # A third of 20 slices.
    # 7 subjects: two full blocks and one of three subjects of the next.
    assert set(slices[:7].sum(axis=0)) == {2, 3}
    other = np.stack([plan.object_slices(SubjectKey(1, OBJECTS, number)) for number in range(60)])
    assert (other != slices).any()


def test_plan_of_lesions_is_balanced_and_in_runs():
    seen = np.zeros((60, 20), int)
    for number in range(60):
        runs = plan.lesion_runs(SubjectKey(0, LESIONS, number))
        assert all(4 <= run.stop - run.start <= 9 for run in runs)
        assert len(runs) in (1, 2)
        if len(runs) == 2:  # The two ends of one run around the circle.
            assert {run.slices.start for run in runs} >= {0}
            assert {run.slices.stop for run in runs} >= {20}
        for run in runs:
            seen[number, run.slices.start : run.slices.stop] += 1
    assert seen.max() == 1  # No two lesions in a slice.
    np.testing.assert_array_equal(seen.sum(axis=0), 20)  # A third of 60 subjects.
    assert seen.sum(axis=1).min() >= 4 and seen.sum(axis=1).max() <= 9
    assert len({tuple(row) for row in seen}) > 30  # Not the same cut for every block.


def assert_consistent(slices, normal_images):
    """Checks a test subject against the same subject without anomalies."""
    assert set(np.unique(slices.masks)) <= {0, 1}
    np.testing.assert_array_equal(slices.masks.any(axis=(1, 2)), slices.labels)
    # A normal slice is the very slice that the subject would have without any anomaly.
    np.testing.assert_array_equal(slices.images[~slices.labels], normal_images[~slices.labels])
    brain = normal_images > 0
    np.testing.assert_array_equal(slices.images > 0, brain)
    assert (slices.masks[~brain] == 0).all()
    anomalous = slices.masks.astype(bool)
    change = np.abs(slices.images.astype(int) - normal_images)
    for index in np.flatnonzero(slices.labels):
        inside = change[index][anomalous[index]].mean()
        outside = change[index][brain[index] & ~anomalous[index]].mean()
        # 8 grey values are .2 s.d. of the brain; around an object or a lesion there is a border
        # or oedema, which changes much less.
        assert inside > 8 and inside > 3 * outside, (slices.group, index)


def test_objects_are_where_the_mask_says(with_objects):
    for number, slices in enumerate(with_objects):
        assert slices.group == f"test_objects-{number:04d}"
        np.testing.assert_array_equal(
            slices.labels, plan.object_slices(SubjectKey(0, OBJECTS, number))
        )
        plain = subject.render(subject.make_subject(SubjectKey(0, OBJECTS, number), SIZE))
        assert_consistent(slices, plain)


def test_lesions_are_where_the_mask_says(with_lesions):
    for number, slices in enumerate(with_lesions):
        planned = np.zeros(20, bool)
        for run in plan.lesion_runs(SubjectKey(0, LESIONS, number)):
            planned[run.slices.start : run.slices.stop] = True
        np.testing.assert_array_equal(slices.labels, planned)
        plain = subject.render(subject.make_subject(SubjectKey(0, LESIONS, number), SIZE))
        assert_consistent(slices, plain)
        area = slices.masks[slices.labels].mean(axis=(1, 2))
        assert area.min() > 0.006  # .6 % of the pixels, by design.


def diameters_mm(mask):
    """Returns the largest and the smallest width of a mask over all directions, in mm."""
    rows, columns = np.nonzero(mask)
    angles = np.deg2rad(np.arange(0, 180, 5))[:, None]
    along = rows * np.cos(angles) + columns * np.sin(angles)
    widths = (np.ptp(along, axis=1) + 1) * PIXEL_MM
    return widths.max(), widths.min()


def test_objects_have_the_designed_diameter():
    widths = []
    for number in range(6):
        brain = np.ones((SIZE, SIZE), bool)  # Nothing cuts the object off.
        generator = np.random.default_rng(number)
        weight, _ = anomalies._shaped_patch(generator, brain)
        mask = weight > 0.5
        assert ndimage.label(mask)[1] == 1
        # Axes of 34 to 64 mm; a superellipse of power 5 reaches 2**(1/2 - 1/5) = 1.23 times as
        # far along its diagonal; pixels of 3.1 mm add up to one more at either end.
        if not mask[[0, -1]].any() and not mask[:, [0, -1]].any():
            largest, smallest = diameters_mm(mask)
            widths.append(largest)
            assert smallest >= 34 - PIXEL_MM and largest <= 64 * 1.23 + 2 * PIXEL_MM
    assert len(widths) >= 3 and np.ptp(widths) > 3  # They are not all the same.


def test_the_mask_is_where_an_object_outweighs_the_brain(normal, monkeypatch):
    ramp = np.broadcast_to(np.linspace(0, 1, SIZE), (SIZE, SIZE))
    patch = np.random.default_rng(0).uniform(size=(SIZE, SIZE))
    monkeypatch.setattr(anomalies, "_shaped_patch", lambda generator, brain: (ramp, patch))
    signal, mask = anomalies.draw_objects(normal, SubjectKey(0, OBJECTS, 0), [9])
    brain = normal.brain[9]
    # The opacity is the ramp times an alpha of .85 to 1: it passes .5 between .5 and .5 / .85.
    assert mask[9][brain & (ramp > 0.5 / 0.85)].all()
    assert not mask[9][(ramp <= 0.5) | ~brain].any()
    assert (signal[9] != normal.signal[9])[brain & (ramp > 0.1)].mean() > 0.99
    others = np.arange(20) != 9
    assert not mask[others].any()
    np.testing.assert_array_equal(signal[others], normal.signal[others])


def test_drawn_objects_keep_their_diameter(with_objects):
    areas = np.concatenate([s.masks[s.labels].sum(axis=(1, 2)) for s in with_objects])
    assert len(areas) == 20  # One block of three subjects: each index once.
    diameters = 2 * np.sqrt(areas / np.pi) * PIXEL_MM
    # The diameter of the disc of the same area. A superellipse of power 5 fills .94 of its box,
    # the disc pi/4: up to 64 * sqrt(.94 / (pi/4)) = 70 mm. The opacity of .85 and the brain's
    # border take some off: at worst a feather (4 mm) and a twentieth of the area.
    assert diameters.min() >= 34 - 4 and diameters.max() <= 70 + PIXEL_MM


def test_lesion_sections_overlap_and_shrink_towards_the_ends(with_lesions):
    """Sections of one lesion overlap from slice to slice, and the middle is the largest part."""
    for number, slices in enumerate(with_lesions):
        for run in plan.lesion_runs(SubjectKey(0, LESIONS, number)):
            masks = slices.masks[run.slices.start : run.slices.stop].astype(bool)
            for lower, upper in itertools.pairwise(masks):
                assert (lower & upper).sum() > 0.3 * min(lower.sum(), upper.sum())
            if len(masks) == run.stop - run.start:  # Not cut off by the stack's end.
                areas = masks.sum(axis=(1, 2))
                assert areas[1:-1].max() > max(areas[0], areas[-1])


def test_lesions_start_in_white_matter(with_lesions):
    shares = []
    for number, slices in enumerate(with_lesions):
        white = subject.make_subject(SubjectKey(0, LESIONS, number), SIZE).white
        masks = slices.masks.astype(bool)
        shares.append(white[masks].mean() / white[white > 0].mean())
    # White matter is over-represented in lesions: each is centred in it.
    assert np.mean(shares) > 1.2
