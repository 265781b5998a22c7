"""Findings: a figure that speaks against a set is said first; one that does not is not made to."""

import pytest

from medisyn.estimates import Estimate
from medisyn.evaluation import findings


def row(name, value, low, high, group="all", floor=None, n=500, extractor=None):
    return Estimate(name, value, low, high, n, group, floor, None, extractor)


SOUND = [row("valid_share", 1.0, 0.99, 1.0), row("repeated_share", 0.0, 0.0, 0.01), row("copy_rate", 0.01, 0.004, 0.02),
         row("copy_rate_unseen", 0.01, 0.005, 0.02), row("copy_rate_planted", 0.995, 0.99, 1.0),
         row("nn_closer_to_train", 0.52, 0.48, 0.56, floor=0.5), row("mia_auc", 0.51, 0.48, 0.54),
         row("coverage_eye", 0.7, 0.65, 0.75, floor=0.9), row("ms_ssim", 0.3, 0.28, 0.32, floor=0.29),
         row("image_type_accuracy", 0.96, 0.94, 0.98, floor=0.97), row("two_sample_eye", 0.52, 0.49, 0.55)]


def grave(rows) -> list[str]:
    return [one.text for one in findings.found(rows) if one.grave]


def test_a_sound_set_has_no_grave_finding():
    assert grave(SOUND) == []
    assert {name for one in findings.found(SOUND) for name in one.names} >= {"valid_share", "copy_rate"}


@pytest.mark.parametrize(("fault", "said"), [
    (row("copy_rate", 0.3, 0.26, 0.34), "called copies of training images"),
    (row("copy_rate_planted", 0.8, 0.75, 0.85), "proves little"),
    (row("repeated_share", 0.9, 0.87, 0.93), "repeat another one"),
    (row("found_in_train", 0.5, 0.45, 0.55), "are training images"),
    (row("found_in_unseen", 1.0, 0.99, 1.0), "real images of the unseen set"),
    (row("valid_share", 0.5, 0.45, 0.55), "flat colour"),
    (row("nn_closer_to_train", 0.8, 0.76, 0.84, floor=0.5), "nearer to a training image"),
    (row("mia_auc", 0.75, 0.7, 0.8), "who was trained on"),
    (row("coverage_eye", 0.1, 0.08, 0.12, floor=0.9, extractor="eye 12"), "narrow"),
    (row("ms_ssim", 0.95, 0.93, 0.97, floor=0.3), "more alike"),
    (row("image_type_accuracy", 0.2, 0.15, 0.25, floor=0.97), "recognises the synthetic images in 20.0 %"),
])
def test_each_fault_is_said_first(fault, said):
    rows = [one for one in SOUND if (one.name, one.group) != (fault.name, fault.group)] + [fault]
    first = findings.found(rows)[0]
    assert first.grave
    assert said in first.text


def test_copies_of_one_image_type_are_found_under_a_clean_average():
    rows = [*SOUND, row("copy_rate", 0.4, 0.3, 0.5, "image_type=mri", n=50),
            row("copy_rate_unseen", 0.02, 0.0, 0.07, "image_type=mri")]
    assert "above all mri" in grave(rows)[0]


def test_without_figures_nothing_is_claimed():
    assert findings.found([]) == []
    missing = Estimate("copy_rate", None, None, None, 0, missing="too few")
    assert findings.found([missing]) == []


def test_a_small_set_is_called_small():
    assert any("9 synthetic images only" in one.text for one in findings.found([row("valid_share", 1.0, 0.7, 1.0, n=9)]))
