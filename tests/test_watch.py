"""Watch: training ends before images are known by heart, and the best weights are kept."""

import pytest
import torch
from torch import nn

from medisyn.training.adapt import Tuned, as_if
from medisyn.training.nearness import Near
from medisyn.training.watch import Watch


def weights(value: float) -> Tuned:
    return Tuned({"net.weight": nn.Parameter(torch.full((2,), value))})


def followed(rows, gap=0.03, patience=2, before=(1.0, 1.0)) -> Watch:
    """A watch that has seen (train, held out) losses in turn, the k-th with weights that are all k."""
    watch = Watch(weights(0.0), gap, patience)
    watch.begin(*before)
    for k, (train, held_out) in enumerate(rows, 1):
        if watch.enough():
            break
        watch.see(train, held_out, weights(float(k)), 100 * k)
    return watch


def test_the_lowest_held_out_loss_is_kept():
    watch = followed([(0.9, 0.9), (0.7, 0.71), (0.69, 0.72)])
    assert not watch.enough() and int(watch.best_at) == 200
    assert next(watch.best.parameters()).tolist() == [2.0, 2.0]
    assert "the weights after 200 images are kept (held-out loss 0.71)" in watch.told()


def test_it_is_enough_when_held_out_images_lag_behind_for_too_long():
    watch = followed([(0.9, 0.9), (0.7, 0.8), (0.5, 0.7), (0.4, 0.69)])
    assert watch.enough() and int(watch.best_at) == 100   # lower held-out losses came with a gap, and do not count
    assert "lagged behind by more than 3%" in watch.told()


def test_one_interval_beyond_is_forgiven():
    watch = followed([(0.7, 0.8), (0.7, 0.7), (0.6, 0.7), (0.6, 0.6)])
    assert not watch.enough() and int(watch.best_at) == 400


def test_losses_count_as_multiples_of_what_they_were():
    watch = Watch(weights(0.0), 0.03, 2)
    watch.begin(2.0, 0.5)                      # harder training images are no sign of anything
    assert watch.see(1.0, 0.25, weights(1.0), 100)["gap"] == pytest.approx(0.0)
    assert watch.see(1.0, 0.275, weights(2.0), 200)["gap"] == pytest.approx(0.1)


def test_a_base_that_is_never_bettered_is_kept_as_it_is():
    watch = followed([(1.1, 1.2), (1.2, 1.3)])
    assert int(watch.best_at) == 0 and "no weights were better on held-out images than those it began from" in watch.told()
    assert next(watch.best.parameters()).tolist() == [0.0, 0.0]


def test_without_held_out_images_the_last_weights_are_kept_and_that_is_said():
    watch = Watch(weights(0.0), 0.03, 2)
    watch.begin(1.0, None)
    assert watch.see(0.1, None, weights(3.0), 300) == {} and not watch.enough()
    assert next(watch.best.parameters()).tolist() == [3.0, 3.0]
    assert "no loss could stop it from memorising" in watch.told()


def test_a_gap_is_let_where_held_out_loss_still_falls_unless_the_watch_is_strict():
    lenient = Watch(weights(0.0), 0.03, 2, strict=False)
    lenient.begin(1.0, 1.0)
    for k, (train, held_out) in enumerate([(0.7, 0.8), (0.5, 0.7), (0.4, 0.69), (0.3, 0.71), (0.2, 0.7)], 1):
        lenient.see(train, held_out, weights(float(k)), 100 * k)
    assert lenient.enough() and int(lenient.best_at) == 300 and next(lenient.best.parameters()).tolist() == [3.0, 3.0]
    assert lenient.published()["gap"] == pytest.approx(0.69 / 0.4 - 1, abs=1e-3)
    assert "lagged behind by more than 3%" in lenient.told()
    lenient.see(0.1, 0.6, weights(9.0), 900, near=Near(0.5, 0.5))         # copies are never let
    assert int(lenient.best_at) == 300


def test_images_too_near_to_training_ones_end_it_whatever_the_loss_says():
    watch = Watch(weights(0.0), 0.03, 2)
    watch.begin(1.0, 1.0)
    assert watch.see(0.9, 0.9, weights(1.0), 100, near=Near(0.97, 0.99)) == {"gap": 0.0, "nearest_ratio": 0.97,
                                                                                         "nearest_distance": 0.99}
    watch.see(0.8, 0.8, weights(2.0), 200, near=Near(0.89, 0.8))
    watch.see(0.7, 0.7, weights(3.0), 300, near=Near(0.80, 0.7))
    assert watch.enough() and int(watch.best_at) == 100 and next(watch.best.parameters()).tolist() == [1.0, 1.0]
    assert "images made lay too near to training images (ratio 0.80, at least 0.9)" in watch.told()
    assert watch.published()["nearest_ratio"] == 0.97 and watch.published()["gap"] == 0.0


def test_images_far_from_all_real_ones_are_no_copies_whatever_the_ratio():
    watch = Watch(weights(0.0), 0.03, 1)
    watch.begin(1.0, 1.0)
    watch.see(0.9, 0.9, weights(1.0), 100, near=Near(0.7, 1.2))
    assert not watch.enough() and watch.published()["nearest_distance"] == 1.2


def test_the_ratio_alone_can_end_it_where_nothing_is_held_out():
    watch = Watch(weights(0.0), 0.03, 1)
    watch.begin(1.0, None)
    watch.see(0.5, None, weights(1.0), 100, near=Near(0.5, 0.5))
    assert watch.enough() and "no weights were better" in watch.told() and watch.published()["gap"] is None


def test_a_network_from_scratch_is_compared_with_its_first_interval():
    watch = Watch(weights(0.0), 0.03, 2)
    watch.begin(0.5, 0.6, kept=False)
    watch.see(0.5, 0.6, weights(1.0), 100)
    assert int(watch.best_at) == 100 and watch.published()["gap"] == 0.0


def test_the_newest_weights_are_better_where_that_is_said():
    watch = followed([(0.7, 0.7)])
    watch.see(0.8, 0.8, weights(9.0), 900, newest=True)
    assert int(watch.best_at) == 900
    watch.see(0.5, 0.8, weights(10.0), 1000, newest=True)   # unless they memorise
    assert int(watch.best_at) == 900


def test_what_was_seen_is_part_of_a_checkpoint():
    watch = followed([(0.9, 0.9), (0.7, 0.8)])
    again = Watch(weights(9.0), 0.03, 2)
    again.load_state_dict(watch.state_dict())
    watch.see(0.6, 0.75, weights(5.0), 300)
    again.see(0.6, 0.75, weights(5.0), 300)
    assert watch.enough() and again.enough() and watch.told() == again.told()


def test_weights_lent_for_a_while_come_back_bit_for_bit():
    ours, other = weights(0.1), weights(7.0)
    with as_if(ours, other):
        assert next(ours.parameters()).tolist() == [7.0, 7.0]
    assert torch.equal(next(ours.parameters()), torch.full((2,), 0.1))
