"""The embedded data set as a TensorFlow Datasets builder.

    builder = IcbmSynth(config=make_config(64), data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source(split="train")

Nothing is downloaded: the anatomy comes from the installed nilearn, the photographs from the
installed scikit-image and scikit-learn.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import joblib
import numpy as np
import tensorflow_datasets as tfds
from threadpoolctl import threadpool_limits

from jaxad.data.files.workers import can_start_processes, parallel
from jaxad.data.synthetic.slices import SPLITS, subject_examples
from jaxad.data.synthetic.template import NUM_SLICES
from jaxad.data.tfds.quiet import silent_tfds
from jaxad.errors import UserError
from jaxad.runtime import interrupts
from jaxad.runtime.progress import progress_bar

DEFAULT_NUM_SUBJECTS = (240, 120, 60, 60)
"""Subjects in train, val, test_objects and test_lesions."""

# For fewer subjects than this, starting workers takes longer than making them here.
_FEW_SUBJECTS = 12


@dataclasses.dataclass(kw_only=True)
class IcbmSynthConfig(tfds.core.BuilderConfig):
    """One version of the data; `make_config` makes it and describes its fields."""

    image_size: int = 64
    seed: int = 0
    num_subjects: tuple[int, ...] = DEFAULT_NUM_SUBJECTS


def make_config(
    image_size: int, seed: int = 0, num_subjects: Sequence[int] = DEFAULT_NUM_SUBJECTS
) -> IcbmSynthConfig:
    """Makes a config whose name tells its contents: `64px_seed0`, or `64px_seed0_6-4-4-4`.

    Args:
        image_size: pixels per side, a positive multiple of 16.
        seed: seed of all random numbers, not negative.
        num_subjects: subjects in train, val, test_objects and test_lesions, at least one each.
            Positives are equally frequent at all slice indices if the number of test subjects is a
            multiple of three; otherwise counts differ by at most one. More subjects change neither
            the earlier ones of their split nor other splits.

    Raises:
        UserError: an argument is out of range.
    """
    counts = tuple(int(count) for count in num_subjects)
    if image_size < 16 or image_size % 16:
        raise UserError(
            f"icbm_synth: image_size is {image_size}; use a multiple of 16, such as 64."
        )
    if seed < 0:
        raise UserError(f"icbm_synth: seed is {seed}; use 0 or more.")
    if len(counts) != len(SPLITS) or min(counts) < 1:
        raise UserError(
            f"icbm_synth: num_subjects is {counts}; give four counts of at least 1, for "
            f"{', '.join(SPLITS)}; on the command line --config.data.num_subjects='(40, 20, 10, "
            "10)'."
        )
    name = f"{image_size}px_seed{seed}"
    if counts != DEFAULT_NUM_SUBJECTS:
        name += "_" + "-".join(map(str, counts))
    return IcbmSynthConfig(
        name=name,
        description=f"{image_size} x {image_size} pixels, seed {seed}.",
        image_size=int(image_size),
        seed=int(seed),
        num_subjects=counts,
    )


class IcbmSynth(tfds.core.GeneratorBasedBuilder):
    """Semi-synthetic axial brain MRI with natural objects and lesions as anomalies.

    `train` and `val` are normal; a third of the slices of `test_objects` and `test_lesions` hold an
    anomaly. Examples are ordered by subject, then by slice.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {"2.0.0": "Sampled faster: a few pixels differ; at 16 px heads are larger."}

    _progress: Any = None

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        return self.dataset_info_from_configs(
            description=(
                "Axial slices of random deformations of the ICBM152 T1 template: 20 slices of "
                "200 x 200 mm a subject, normal or with a photograph or a lesion drawn in."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["normal", "anomalous"]),
                    "mask": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
                    "id": tfds.features.Text(),
                    "group": tfds.features.Text(),
                    "position": np.int32,
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009",
            citation="Fonov et al., NeuroImage 54(1):313-327, 2011",
            disable_shuffling=True,
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Makes the data unless they are cached, in parallel, with one progress bar."""
        with silent_tfds():
            try:
                super().download_and_prepare(**kwargs)
            finally:
                if self._progress is not None:
                    self._progress.close()
                    self._progress = None

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # Nothing is downloaded.
        config = self.builder_config
        self._progress = progress_bar(
            total=sum(config.num_subjects), desc=f"icbm_synth {config.name}", unit="subject"
        )
        return {
            split: self._generate_examples(split, count)
            for split, count in zip(SPLITS, config.num_subjects, strict=True)
        }

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict]]:
        for number, examples in enumerate(make_examples(self.builder_config, split, count)):
            for position, example in enumerate(examples):
                yield number * NUM_SLICES + position, example
            if self._progress is not None:
                self._progress.update()
            interrupts.check()


def make_examples(
    config: IcbmSynthConfig, split: str, count: int, num_workers: int | None = None
) -> Iterator[list[dict]]:
    """Makes the encoded examples of a split in parallel, and yields the 20 of each subject.

    `num_workers` is a number of processes; None for all cores, or this process alone for a few
    subjects.
    """
    if num_workers is None:
        few = sum(config.num_subjects) < _FEW_SUBJECTS
        num_workers = 1 if few else min(joblib.cpu_count(), count)
    keys = [(config.seed, split, number, config.image_size) for number in range(count)]
    if num_workers == 1 or not can_start_processes():
        with threadpool_limits(1):
            yield from (subject_examples(*key) for key in keys)
        return
    with parallel(num_workers) as workers:
        subjects = workers(joblib.delayed(subject_examples)(*key) for key in keys)
    yield from subjects
