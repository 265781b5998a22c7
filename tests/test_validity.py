"""Validity: repeated, blank, unlabelled and stolen images are counted."""

import dataclasses

import judged
import numpy as np
import pytest
from PIL import Image

from medisyn.data import records
from medisyn.evaluation import validity
from medisyn.evaluation.sets import open_sets


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    home = tmp_path_factory.mktemp("real")
    return judged.collection(home / "train", range(12)), judged.collection(home / "unseen", range(100, 108), "test")


def figures(real, synthetic) -> dict[str, float | None]:
    return {row.name: row.value for row in validity.measure(open_sets(*real, synthetic))}


def test_a_set_of_new_images_is_valid(real, tmp_path):
    found = figures(real, judged.collection(tmp_path / "made", range(200, 210)))
    assert found == {"valid_share": 1, "labelled_share": 1, "provenance_share": 0, "repeated_share": 0, "found_in_train": 0,
                     "found_in_unseen": 0}


def test_one_image_repeated_shows(real, tmp_path):
    made = judged.collection(tmp_path / "made", range(200, 210))
    for path in (made / "images").iterdir():
        Image.fromarray(judged.scene(7000)).save(path)
    assert figures(real, made)["repeated_share"] == pytest.approx(0.9)


def test_real_images_called_synthetic_show_even_from_other_files(real, tmp_path):
    def in_colour(pixels):
        return np.repeat(pixels[..., None], 3, 2)
    assert figures(real, judged.collection(tmp_path / "a", range(6), change=in_colour))["found_in_train"] == 1
    found = figures(real, judged.collection(tmp_path / "b", range(100, 106)))
    assert (found["found_in_train"], found["found_in_unseen"]) == (0, 1)


def test_blank_images_show_nothing(real, tmp_path):
    made = judged.collection(tmp_path / "made", range(200, 204), change=lambda pixels: np.full_like(pixels, 80))
    assert figures(real, made)["valid_share"] == 0


def test_words_outside_the_vocabulary_are_no_labels(real, tmp_path):
    made = judged.collection(tmp_path / "made", range(200, 204))
    first, *others = records.read(made)
    records.write([dataclasses.replace(first, view="sideways"), *others], made)
    assert figures(real, made)["labelled_share"] == 0.75


def test_a_bare_folder_has_no_labels_and_that_is_said(real, tmp_path):
    made = judged.collection(tmp_path / "made", range(200, 204))
    (made / "metadata.jsonl").unlink()
    rows = {row.name: row for row in validity.measure(open_sets(*real, made))}
    assert rows["labelled_share"].value is None
    assert "give a metadata.jsonl" in rows["labelled_share"].missing
