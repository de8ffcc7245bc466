"""Each loss against a value computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from train.losses import (
    cosine_smooth_l1,
    focal_loss,
    mean_over_networks,
    shift_by_prior,
    soft_logits_kl,
)
from train.original import embedding_kl


def test_focal_loss_of_two_images_by_hand() -> None:
    # Softmax of (0, ln 3) is (1/4, 3/4); of (ln 9, 0) it is (9/10, 1/10).
    logits = torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0]])
    expected = [-((1 - 3 / 4) ** 2) * math.log(3 / 4), -((1 - 1 / 10) ** 2) * math.log(1 / 10)]
    assert focal_loss(logits, torch.tensor([1, 1]), gamma=2).tolist() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, labels = torch.randn(8, 3), torch.randint(3, (8,))
    torch.testing.assert_close(
        focal_loss(logits, labels, gamma=0), F.cross_entropy(logits, labels, reduction="none")
    )


def test_focal_loss_stays_finite_where_the_model_is_certain() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), gamma=2)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0, 400])
    assert torch.isfinite(logits.grad).all()


def test_embedding_kl_by_hand() -> None:
    # Target softmax (1/2, 1/2), student softmax (1/4, 3/4).
    target, projected = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert embedding_kl(projected, target, temperature=1).item() == pytest.approx(expected, rel=1e-5)
    # Twice the inputs at temperature 2 give the same distributions, times T².
    assert embedding_kl(2 * projected, target, temperature=2).item() == pytest.approx(4 * expected, rel=1e-5)


def test_embedding_kl_is_zero_for_a_perfect_student() -> None:
    target = torch.randn(4, 5)
    assert embedding_kl(target + 3, target, temperature=1).tolist() == pytest.approx([0] * 4, abs=1e-6)


def test_balanced_softmax_and_its_half_by_hand() -> None:
    # Counts 1 and 3 turn even logits into the probabilities 1/4 and 3/4.
    logits, labels, counts = torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([1.0, 3.0])
    whole = F.cross_entropy(shift_by_prior(logits, counts, 1.0), labels, reduction="none")
    assert whole.tolist() == pytest.approx([math.log(4), math.log(4 / 3)], rel=1e-5)
    half = shift_by_prior(logits, counts, 0.5).softmax(dim=-1)[0]
    assert (half[1] / half[0]).item() == pytest.approx(math.sqrt(3), rel=1e-5)
    assert torch.equal(shift_by_prior(logits, counts, 0.0), logits)


def test_a_wide_network_weighs_no_more_than_a_narrow_one() -> None:
    # The narrow network is met, the wide one missed: half the loss, although it has 98 of 100 dimensions.
    target = torch.randn(3, 100)
    projected = torch.cat([target[:, :2], -target[:, 2:]], dim=1)
    found = mean_over_networks(cosine_smooth_l1, projected, target, (2, 98))
    missed = cosine_smooth_l1(projected[:, 2:], target[:, 2:])
    torch.testing.assert_close(found, missed / 2, atol=1e-6, rtol=1e-5)


def test_cosine_smooth_l1_by_hand() -> None:
    # At right angles: 1 - 0. Differences 3 and 4, both beyond 1: |d| - 1/2, so the mean of 2.5 and 3.5.
    loss = cosine_smooth_l1(torch.tensor([[3.0, 0.0], [0.5, 0.0]]), torch.tensor([[0.0, 4.0], [1.0, 0.0]]))
    # The second pair is parallel: 1 - 1, and half the square of 0.5, averaged over two dimensions.
    assert loss.tolist() == pytest.approx([1 + 3.0, 0.125 / 2], rel=1e-5)


def test_soft_logits_by_hand() -> None:
    # At temperature 2, ln 9 becomes ln 3: teacher (3/4, 1/4) against student (1/2, 1/2), times 4.
    loss = soft_logits_kl(torch.zeros(1, 2), torch.tensor([[math.log(9), 0.0]]), temperature=2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert loss.tolist() == pytest.approx([expected], rel=1e-5)
    # Log-probabilities serve as logits.
    target = torch.randn(3, 4)
    torch.testing.assert_close(
        soft_logits_kl(torch.ones(3, 4), target, 3.0),
        soft_logits_kl(torch.ones(3, 4), target.log_softmax(dim=-1), 3.0),
    )
