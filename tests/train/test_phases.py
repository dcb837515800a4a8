"""The schedule of alternating and staged training."""

import pytest

from jaxad.errors import UserError
from jaxad.train.phases import check_phases, dispatches, make_phases

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
def test_wrong_schedules_are_refused(schedule, words):
    with pytest.raises(UserError, match=words):
        check_phases(make_phases(schedule, ("encoder", "generator", "critic"), 10))


def test_a_schedule_for_a_long_run_is_accepted():
    """How often a network trains depends on the number of updates of the run."""
    schedule = {"generator": (0.0, 1.0, 2000)}
    check_phases(make_phases(schedule, ("generator", "critic"), 5000))


def test_states_are_compared_once_every_network_has_been_trained():
    phases = make_phases(GAN, ("encoder", "generator", "critic"), 14)
    assert [step for step in range(15) if phases.all_begun(step)] == list(range(8, 15))


def test_updates_go_together_within_a_phase_and_between_boundaries():
    phases = make_phases({}, ("model",), 14)
    counts = [count for _, count in dispatches(phases, 0, 4, (8, 10))]
    # 0-3, 4-7; the host logs after 10, which falls inside of 8-11; 12-15 would pass the end.
    assert counts == [4, 4, 1, 1, 1, 1, 1, 1]
    staged = make_phases(GAN, ("encoder", "generator", "critic"), 14)
    found = list(dispatches(staged, 0, 2, (100,)))
    assert sum(count for _, count in found) == 14
    step = 0
    for phase, count in found:
        assert {staged.at(number) for number in range(step, step + count)} == {phase}
        assert count == 1 or step % 2 == 0
        step += count
    # Updates 8 to 13, counted from 0, are one stage; the first seven alternate.
    assert [count for _, count in found[-3:]] == [2, 2, 2]


@pytest.mark.parametrize("start", range(15))
def test_a_resumed_run_has_the_dispatches_of_an_uninterrupted_one(start):
    phases = make_phases({}, ("model",), 14)
    whole, step = {}, 0
    for _, count in dispatches(phases, 0, 4, (10,)):
        whole[step] = count
        step += count
    if start in whole:
        rest = [count for _, count in dispatches(phases, start, 4, (10,))]
        assert rest == [count for first, count in whole.items() if first >= start]
