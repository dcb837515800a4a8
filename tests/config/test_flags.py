"""Values of flags."""

import pytest

from jaxad.config.flags import parse_names, parse_number
from jaxad.errors import UserError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("good, fine", ("good", "fine")),
        ("('good', 'fine')", ("good", "fine")),
        ("['good', 'fine']", ("good", "fine")),
        ("'good','fine'", ("good", "fine")),
        ("(good, fine)", ("good", "fine")),
        ("('good')", ("good",)),
        ("good", ("good",)),
        ("3", ("3",)),
        ("(3,)", ("3",)),
        ("()", ()),
        ("", ()),
        (r"block_\d{1,2}/.*,(stem|head)/.*", (r"block_\d{1,2}/.*", "(stem|head)/.*")),
    ],
)
def test_names_are_written_with_commas_or_as_in_a_config(text, names):
    assert parse_names("config.data.normal_classes", text) == names


def test_a_damaged_tuple_of_names_is_refused():
    with pytest.raises(UserError, match="--x=.*: not understood; write .*=first,second"):
        parse_names("x", "('good', 'fine")


def test_a_text_that_is_no_number_is_answered_with_an_example():
    with pytest.raises(UserError, match=r"--rate=5%: not a number; write a share, such as 0\.05"):
        parse_number("rate", "5%", "a share, such as 0.05 for 5 %")
