"""Caches never change a result, even if the process that wrote them was killed."""

from pathlib import Path

import pytest

DIGESTS = "checkpoints/12/digests/metadata"


@pytest.mark.long
def test_truncated_compiled_programs_are_compiled_again(forker, tiny, tmp_path):
    cache = tmp_path / "compiled"
    setup = f"import jax; jax.config.update('jax_compilation_cache_dir', {str(cache)!r})"
    config = f"--config={tiny / 'tiny.py'}"

    def run(name: str) -> str:
        ended = forker.run(config, f"--workdir={tmp_path / name}", "--mode=train", setup=setup)
        assert ended.code == 0, ended.printed
        return ended.printed

    told = "Error reading persistent compilation cache entry"
    assert told not in run("before")
    entries = [path for path in cache.iterdir() if path.stat().st_size > 1000]
    assert len(entries) > 1
    for place, path in enumerate(entries):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if place % 2 else b"")
    assert told in run("after")
    assert (tmp_path / "after" / DIGESTS).read_bytes() == (
        tmp_path / "before" / DIGESTS
    ).read_bytes()


@pytest.mark.long
def test_a_feature_cache_whose_process_was_killed(forker, data_root, tmp_path):
    def arguments(name: str) -> list[str]:
        return [
            "--config=aeflow:smoke",
            f"--workdir={tmp_path / name}",
            "--mode=train",
            f"--config.data.root={data_root}",
            f"--config.train.feature_cache={tmp_path / f'features-{name}'}",
        ]

    def last_digests(name: str) -> bytes:
        steps = [
            path for path in (tmp_path / name / "checkpoints").iterdir() if path.name.isdigit()
        ]
        return (max(steps, key=lambda path: int(path.name)) / "digests/metadata").read_bytes()

    whole = forker.start(*arguments("whole"), below=tmp_path / "features-whole")
    ended = forker.finish(whole)
    assert ended.code == 0, ended.printed
    changes = len(whole.changes)
    assert changes > 6
    for place in range(2, changes, 3):
        child = forker.start(
            *arguments("killed"), below=tmp_path / "features-killed", kill_at=place
        )
        code = forker.finish(child).code
        assert code in (-9, 0)
        if code == 0:
            break
    ended = forker.run(*arguments("killed"))
    assert ended.code == 0, ended.printed
    assert last_digests("killed") == last_digests("whole")
    features = [path.read_bytes() for path in sorted(tmp_path.glob("features-*/*/features.bin"))]
    assert len(features) == 4 and features[0:2] == features[2:4]
    assert not list(Path(tmp_path).rglob("features.partial"))
