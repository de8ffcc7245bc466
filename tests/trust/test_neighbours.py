"""The index against an exact search in floats, and votes against hand-made cases."""

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dermadeit.errors import CheckpointError
from dermadeit.tasks import BINARY, DIAGNOSIS, MULTICLASS, Task
from dermadeit.trust.neighbours import (
    OUTSIDE,
    Neighbour,
    NeighbourIndex,
    count_votes,
    describe_disagreement,
    describe_outside,
    describe_vote,
    describe_votes,
    disagreeing_share,
    disagrees,
    outside_share,
)

TRAIN_IMAGES, EMBEDDING_DIM = 16_100, 192


def _clustered(count: int, dim: int = 48, seed: int = 0) -> np.ndarray:
    """float32 [count, dim]: points around twenty centres, off the origin as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim)) + 1
    points = centres[rng.integers(20, size=count)] + 0.5 * rng.normal(size=(count, dim))
    return points.astype(np.float32)


def _index(embeddings: np.ndarray, **options) -> NeighbourIndex:
    diagnoses = [("NV", "MEL", "BCC")[row % 3] for row in range(len(embeddings))]
    return NeighbourIndex.build(
        embeddings, [f"image_{row}" for row in range(len(embeddings))], diagnoses, **options
    )


def _exact_distances(query: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    query, embeddings = query.astype(float), embeddings.astype(float)
    return 1 - embeddings @ query / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(query)


def _neighbours(*cases: tuple[str, float]) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(f"image_{row}", *case) for row, case in enumerate(cases))


def test_the_search_finds_what_an_exact_one_finds() -> None:
    points = _clustered(1100)
    embeddings, queries = points[:1000], points[1000:]
    index = _index(embeddings)
    recalls = []
    for query in queries:
        distances = _exact_distances(query, embeddings)
        expected = [f"image_{row}" for row in np.argsort(distances)[:5]]
        found = index.query(query, 5)
        recalls.append(len({neighbour.image_id for neighbour in found} & set(expected)) / 5)
        assert [neighbour.distance for neighbour in found] == pytest.approx(np.sort(distances)[:5], abs=5e-3)
    assert np.mean(recalls) >= 0.95


def test_the_nearest_comes_first_with_its_own_diagnosis() -> None:
    index = NeighbourIndex.build(
        np.array([[0, 1], [1, 0], [1, 1]], dtype=np.float32), ["up", "right", "both"], ["NV", "MEL", "VASC"]
    )
    angle = math.radians(30)
    found = index.query(np.array([math.cos(angle), math.sin(angle)]))
    assert [(neighbour.image_id, neighbour.diagnosis) for neighbour in found] == [
        ("both", "VASC"),
        ("right", "MEL"),
        ("up", "NV"),
    ]
    assert [neighbour.distance for neighbour in found] == pytest.approx(
        [1 - math.cos(math.radians(degrees)) for degrees in (15, 30, 60)], abs=1e-6
    )


def test_size_of_an_embedding_does_not_matter() -> None:
    embeddings = _clustered(50)
    query = _clustered(1, seed=1)[0]
    assert _index(embeddings).query(query) == _index(embeddings * 8).query(query)


def test_a_lesion_is_shown_once_by_its_most_similar_photo() -> None:
    embeddings = np.array([[1, 0.3], [1, 0.1], [1, 0.5], [0, 1]], dtype=np.float32)
    index = _index(embeddings, lesion_groups=["a", "a", "b", "c"])
    found = index.query(np.array([1.0, 0.0]))
    assert [neighbour.image_id for neighbour in found] == ["image_1", "image_2", "image_3"]


def test_a_training_image_is_named_and_its_lesion_is_no_evidence() -> None:
    embeddings = _clustered(60)
    index = _index(embeddings, lesion_groups=[f"lesion_{row // 2}" for row in range(60)])
    # As another batch would give it.
    query = embeddings[10] * 1.000001
    copy = index.find_copy(query)
    assert copy is not None
    assert copy.image_id == "image_10"
    shown = {neighbour.image_id for neighbour in index.query(query, 60)}
    assert len(shown) == 29
    assert not shown & {"image_10", "image_11"}


def test_a_new_image_is_no_copy() -> None:
    assert _index(_clustered(60)).find_copy(_clustered(1, seed=1)[0]) is None


def test_an_index_is_saved_and_read_exactly(tmp_path: Path) -> None:
    embeddings = _clustered(40)
    index = NeighbourIndex.build(
        embeddings,
        [f"läsion_{row * row}" for row in range(40)],
        [("NV", "VASC")[row % 2] for row in range(40)],
        [f"lesion_{row // 3}" for row in range(40)],
    )
    save_file(index.to_arrays(), tmp_path / "index.safetensors")
    again = NeighbourIndex.from_arrays(load_file(tmp_path / "index.safetensors"))
    assert len(again) == 40
    for query in _clustered(5, seed=1):
        assert again.query(query, 40) == index.query(query, 40)


def test_the_index_of_the_training_images_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    index = NeighbourIndex.build(
        rng.normal(size=(TRAIN_IMAGES, EMBEDDING_DIM)).astype(np.float32),
        [f"ISIC_{row:07}_downsampled" for row in range(TRAIN_IMAGES)],
        ["NV"] * TRAIN_IMAGES,
    )
    save_file(index.to_arrays(), tmp_path / "index.safetensors")
    assert (tmp_path / "index.safetensors").stat().st_size < 6_000_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays: arrays.pop("lesions"),
        lambda arrays: arrays.update(codes=arrays["codes"][:-1]),
        lambda arrays: arrays.update(codes=arrays["codes"].astype(np.float32)),
        lambda arrays: arrays.update(diagnoses=arrays["diagnoses"] + 9),
    ],
    ids=["array missing", "row missing", "wrong type", "unknown diagnosis"],
)
def test_a_damaged_index_is_refused(damage) -> None:
    arrays = _index(_clustered(9)).to_arrays()
    damage(arrays)
    with pytest.raises(CheckpointError, match="calibrate"):
        NeighbourIndex.from_arrays(arrays)


def test_fewer_lesions_than_asked_for() -> None:
    assert len(_index(_clustered(3)).query(_clustered(1, seed=1)[0], 5)) == 3


def test_equal_distances_come_in_the_order_of_the_index() -> None:
    index = _index(np.array([[0, 1], [0, -1], [0, 1]], dtype=np.float32))
    query = np.array([1.0, 0.0])
    assert [neighbour.image_id for neighbour in index.query(query)] == ["image_0", "image_1", "image_2"]
    assert index.query(query) == index.query(query)


def test_votes_fade_with_distance() -> None:
    # 0.07 further away, a vote counts 1 / e.
    neighbours = _neighbours(("NV", 0.1), ("MEL", 0.17), ("BCC", 0.17))
    assert disagreeing_share(neighbours, "nevus", BINARY) == pytest.approx(2 / (math.e + 2))
    assert disagreeing_share(neighbours, "others", BINARY) == pytest.approx(math.e / (math.e + 2))


@pytest.mark.parametrize(
    ("diagnoses", "label", "expected"),
    [
        (("NV", "NV", "NV", "MEL", "BCC"), "nevus", False),
        (("NV", "NV", "MEL", "BKL", "VASC"), "nevus", True),
        (("MEL", "BCC", "AK", "SCC", "DF"), "others", False),
        (("NV", "NV"), "others", True),
        (("NV", "MEL"), "nevus", False),
        ((), "nevus", False),
    ],
)
def test_binary_neighbours_contradict_by_majority(
    diagnoses: tuple[str, ...], label: str, expected: bool
) -> None:
    neighbours = _neighbours(*((diagnosis, 0.2) for diagnosis in diagnoses))
    assert disagrees(neighbours, label, BINARY) is expected
    assert bool(describe_disagreement(neighbours, label, BINARY)) is expected


def test_a_near_neighbour_outweighs_far_ones() -> None:
    neighbours = _neighbours(("MEL", 0.05), ("NV", 0.4), ("NV", 0.4), ("NV", 0.4), ("NV", 0.4))
    assert disagrees(neighbours, "nevus", BINARY)


def test_diagnoses_outside_the_task_have_no_vote() -> None:
    neighbours = _neighbours(("NV", 0.1), ("NV", 0.1), ("MEL", 0.1), ("BCC", 0.1), ("MEL", 0.1))
    assert disagreeing_share(neighbours, "mel", MULTICLASS) == pytest.approx(1 / 3)
    assert disagreeing_share(neighbours, "bcc", MULTICLASS) == pytest.approx(2 / 3)
    assert outside_share(neighbours, MULTICLASS) == 0.4
    assert describe_outside(count_votes(neighbours, MULTICLASS)) not in describe_disagreement(
        neighbours, "bcc", MULTICLASS
    )


def test_that_most_look_like_something_the_model_can_not_answer_is_said() -> None:
    neighbours = _neighbours(("NV", 0.1), ("NV", 0.1), ("BKL", 0.1), ("MEL", 0.1), ("MEL", 0.1))
    assert not disagrees(neighbours, "mel", MULTICLASS)
    said = describe_disagreement(neighbours, "mel", MULTICLASS)
    assert "3 of the 5" in said
    assert said.endswith(": 2 melanocytic nevi, 1 benign keratosis.")
    against = describe_disagreement(neighbours, "scc", MULTICLASS)
    assert "0 of the 5" in against
    assert said in against
    assert not disagrees(neighbours[:3], "mel", MULTICLASS)
    assert describe_disagreement(neighbours, "others", BINARY) == ""


def test_a_table_without_diagnoses_votes_by_its_labels() -> None:
    neighbours = _neighbours(("others", 0.1), ("others", 0.1), ("nevus", 0.1))
    assert disagrees(neighbours, "nevus", BINARY)
    assert "2 not nevi, 1 nevus" in describe_disagreement(neighbours, "nevus", BINARY)


@pytest.mark.parametrize(
    ("diagnoses", "label", "sentence"),
    [
        (["NV"] * 14 + ["MEL"] * 6, "nevus", "14 of the 20 most similar cases are nevi"),
        (["NV"] * 1 + ["MEL"] * 19, "nevus", "1 of the 20 most similar cases is a nevus"),
        (["MEL"] * 20, "nevus", "0 of the 20 most similar cases are nevi"),
        (["NV"] * 14 + ["MEL"] * 5 + ["DF"], "others", "6 of the 20 most similar cases are not nevi"),
        (["NV"] * 19 + ["VASC"], "others", "1 of the 20 most similar cases is not a nevus"),
    ],
)
def test_the_vote_of_the_similar_cases_is_counted_for_the_answer(
    diagnoses: list[str], label: str, sentence: str
) -> None:
    votes = count_votes(_neighbours(*((diagnosis, 0.1) for diagnosis in diagnoses)), BINARY)
    assert describe_votes(votes, label, BINARY) == sentence
    assert sum(votes.values()) == 20
    assert describe_outside(votes) == ""


def test_votes_for_diagnoses_that_the_model_can_not_give_are_counted_apart() -> None:
    votes = count_votes(_neighbours(("MEL", 0.1), ("NV", 0.1), ("DF", 0.1), ("mel", 0.2)), MULTICLASS)
    assert votes == {"mel": 2, "bcc": 0, "scc": 0, OUTSIDE: 2}
    assert describe_votes(votes, "mel", MULTICLASS).startswith("2 of the 4 ")
    assert describe_outside(votes).startswith("2 of the 4 ")


def test_the_whole_vote_is_said_with_that_for_the_answer_first() -> None:
    def vote(diagnoses: list[str], label: str, task: Task) -> str:
        near = [Neighbour(f"n{index}", name, 0.1) for index, name in enumerate(diagnoses)]
        return describe_vote(count_votes(near, task), label, task)

    mixed = ["NV"] * 14 + ["MEL"] * 6
    assert vote(mixed, "nevus", BINARY) == "14 of the 20 most similar cases are nevi, 6 are not nevi"
    assert vote(["NV"] * 20, "nevus", BINARY) == "20 of the 20 most similar cases are nevi"
    several = ["NV"] * 12 + ["BKL"] + ["BCC"] * 2 + ["MEL"] * 5
    assert vote(several, "mel", DIAGNOSIS) == (
        "5 of the 20 most similar cases are melanomas, 12 are melanocytic nevi, 2 are basal cell carcinomas, "
        "1 is a benign keratosis"
    )
