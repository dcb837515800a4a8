"""The schedule of alternating and staged training."""

import pytest

from jaxad.errors import UserError
from jaxad.train.phases import check_phases, make_phases

GAN = {"critic": (0.0, 0.5, 1), "generator": (0.0, 0.5, 3), "encoder": (0.5, 1.0, 1)}


def test_networks_that_are_not_named_train_at_every_update():
    phases = make_phases({}, ("left", "right"), 3)
    assert [phases.at(step) for step in range(3)] == [("left", "right")] * 3
    assert phases.count("left") == 3


def test_alternation_and_stages():
    phases = make_phases(GAN, ("encoder", "generator", "critic"), 14)
    # The generator follows every third update of the critic; 7 updates are the first stage.
    found = [phases.at(step) for step in range(14)]
    both, critic = ("generator", "critic"), ("critic",)
    assert found == [critic, critic, both, critic, critic, both, critic] + [("encoder",)] * 7
    assert [phases.count(name) for name in ("critic", "generator", "encoder")] == [7, 2, 7]
    # What a network has done before an update is the number of its updates before it.
    for step in range(15):
        for name in GAN:
            assert phases.count(name, step) == sum(name in phase for phase in found[:step])


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"discriminator": (0.0, 1.0, 1)}, "no such network; it has encoder, generator, critic"),
        ({"critic": (0.0, 1.0)}, "give .start, end, every."),
        ({"critic": 1.0}, "give .start, end, every."),
        ({"critic": (0.5, 0.5, 1)}, "0 <= start < end"),
        ({"critic": (0.0, 1.5, 1)}, "0 <= start < end"),
        ({"critic": (0.0, 1.0, 0)}, "at least 1"),
        ({"critic": (0.0, 1.0, 1.5)}, "a whole number"),
        ({"critic": (0.0, 1.0, float("inf"))}, "give three numbers"),
        ({"critic": ("0", "1", "1")}, "give three numbers"),
        ({**GAN, "encoder": (0.75, 1.0, 1)}, "update 6 of 10 would train no network"),
        (dict.fromkeys(GAN, (0.0, 1.0, 2)), "update 1 of 10 would train no network"),
        ({**GAN, "generator": (0.0, 0.5, 6)}, "10 updates are too few to train 'generator'"),
    ],
)
def test_schedules_that_cannot_be_are_refused(schedule, words):
    with pytest.raises(UserError, match=words):
        check_phases(make_phases(schedule, ("encoder", "generator", "critic"), 10))


def test_what_a_long_run_can_do_is_not_refused_for_its_shape():
    """How often a network trains depends on the number of updates, known when data are there."""
    schedule = {"generator": (0.0, 1.0, 2000)}
    check_phases(make_phases(schedule, ("generator", "critic"), 5000))


def test_states_are_compared_once_every_network_has_been_trained():
    phases = make_phases(GAN, ("encoder", "generator", "critic"), 14)
    assert [step for step in range(15) if phases.all_begun(step)] == list(range(8, 15))
