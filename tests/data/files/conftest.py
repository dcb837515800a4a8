"""Image files that tables list."""

import pytest
from user_files import write_image, write_mask


@pytest.fixture
def images(tmp_path):
    for number in range(10):
        write_image(tmp_path / f"images/{number}.png", 100 + number)
    write_mask(tmp_path / "masks/9.png")
    return tmp_path
