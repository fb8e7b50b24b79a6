"""Searches of several nodes on an object store: a node that is lost while it fetches, and two searches on one store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.raylets import Raylets, alive, holder, raylets
from tests.tune.line_to_server import LineToServer
from tests.tune.tiny_search import (
    PATIENCE,
    check_shared,
    outcomes,
    overlapping_space,
    reported,
    results,
    searched_alone,
    searching,
    words,
    write_space,
)
from tune.storage.folder import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900 * PATIENCE)]


@pytest.fixture
def nodes(bucket: str) -> Iterator[Raylets]:
    """Two workers of one core each, that know the server's credentials."""
    with raylets(2) as started:
        yield started


def test_a_node_lost_while_it_fetches(tmp_path: Path, bucket: str, nodes: Raylets) -> None:
    """The one node has built the GAN, the other is lost in the midst of fetching it."""
    port = bucket.rpartition(":")[2]
    line = LineToServer("127.0.0.1", int(port))
    place = Storage(bucket.replace(port, f"{line.port}")).child("fetching")
    space = write_space(tmp_path, search__trials=4, gan__steps=400, gan__steps_per_epoch=20)
    line.hold(r"GET \S*/store/gan/\S*safetensors")
    arguments = [*words(space, place.uri, "--address", nodes.address, "--verbose")]
    arguments[arguments.index("--concurrent") + 1] = "2"
    try:
        with searching(arguments, tmp_path / "log") as search:
            search.until(line.held.is_set, 300)
            (lock,) = (path for one in nodes.temporary for path in one.glob("latent-defense-store-*/.locks/gan.*"))
            fetching = holder(lock)
            assert fetching is not None
            nodes.kill(fetching)
            search.until(lambda: not alive(fetching), 60)
            line.let_go()
            assert search.wait(400) == 0, search.output
    finally:
        line.close()
    ended = outcomes(Storage(bucket).child("fetching").child("one"))
    assert [ended[number].status for number in sorted(ended)] == ["finished"] * 4
    assert sum(int(outcome.work["gan"]["built"]) for outcome in ended.values()) == 1
    lost = lock.parents[1]
    assert not list(lock.parents[1].glob("gan.*/*"))  # nobody can take a part of it for the whole
    assert list(lost.glob(".draft-*"))


def test_two_searches_of_one_cluster_on_one_store(tmp_path: Path, bucket: str, nodes: Raylets) -> None:
    place = Storage(bucket).child("shared")
    spaces = [overlapping_space(tmp_path / name, number) for number, name in enumerate(("one", "two"))]
    at = ("--address", nodes.address)
    with (
        searching(words(spaces[0], place.uri, *at, name="one"), tmp_path / "one.log") as one,
        searching(words(spaces[1], place.uri, *at, name="two"), tmp_path / "two.log") as two,
    ):
        ends = [time.monotonic() if search.wait(400) == 0 else search.output for search in (one, two)]
        assert all(isinstance(end, float) for end in ends), ends
    homes = [place.child(name) for name in ("one", "two")]
    assert check_shared(place, homes) > 4
    for space, home in zip(spaces, homes, strict=True):
        alone = searched_alone(space, tmp_path / "alone", home)
        assert results(home) == results(alone)
        assert reported(home) == reported(alone)
