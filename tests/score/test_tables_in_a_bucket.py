"""Tables of scores in a bucket: a kill at any moment leaves what the same call continues."""

import pytest

from jaxad.score.tables import Tables
from jaxad.storage import working_copies
from jaxad.storage.buckets import Objects
from jaxad.storage.workdir import Workdir


class Killed(BaseException):
    pass


def score(url: str, rate: str) -> list[dict[str, str]]:
    """Scores four items in two blocks; the decisions depend on the rate."""
    workdir = Workdir(url)
    workdir.check_writable()
    with workdir.lock():

        def decide(rows):
            return [{**row, "anomalous": rate} for row in rows]

        columns = ("id", "anomalous")
        tables = Tables(workdir.path, columns, {"rate": rate}, ("rate",), decide)
        while tables.num_done < 4:
            names = (tables.num_done, tables.num_done + 1)
            tables.add([{"id": str(name), "anomalous": rate} for name in names], [], 2)
            working_copies.publish(workdir.path, now=True)
        return list(tables.rows())


@pytest.mark.parametrize("is_put_half", [False, True])
@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_a_kill_at_any_upload(bucket, monkeypatch, is_put_half):
    """First and with another rate, which decides again; "0.25" is longer than "0"."""
    monkeypatch.setattr(working_copies, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr("jaxad.storage.lease.Lease.end", lambda lease: None)
    put, num_kills = Objects.put, 0
    for rates in (["0"], ["0", "0.25"], ["0.25", "0"]):
        for number in range(1, 20):
            url, calls = f"{bucket}/{rates}-{number}", []
            monkeypatch.setattr(working_copies, "_copies", {})
            for rate in rates[:-1]:
                score(url, rate)

            def kill(self, paths, number=number, calls=calls):
                if paths:
                    calls.append(1)
                if len(calls) >= number:
                    if len(calls) == number and is_put_half:
                        put(self, dict(list(paths.items())[:1]))
                    raise Killed
                put(self, paths)

            monkeypatch.setattr(working_copies, "_copies", {})
            monkeypatch.setattr(Objects, "put", kill)
            try:
                score(url, rates[-1])
            except Killed:
                num_kills += 1
            monkeypatch.setattr(Objects, "put", put)
            monkeypatch.setattr(working_copies, "_copies", {})
            rows = score(url, rates[-1])
            assert rows == [{"id": str(name), "anomalous": rates[-1]} for name in range(4)]
            if len(calls) < number:
                break
    assert num_kills > 10
