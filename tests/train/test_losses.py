"""Each loss against a value computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from train.losses import embedding_kl, focal_loss


def test_focal_loss_of_two_images_by_hand() -> None:
    # Softmax of (0, ln 3) is (1/4, 3/4); of (ln 9, 0) it is (9/10, 1/10).
    logits = torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0]])
    expected = (-((1 - 3 / 4) ** 2) * math.log(3 / 4) - ((1 - 1 / 10) ** 2) * math.log(1 / 10)) / 2
    assert focal_loss(logits, torch.tensor([1, 1]), gamma=2).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, labels = torch.randn(8, 3), torch.randint(3, (8,))
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0), F.cross_entropy(logits, labels))


def test_focal_loss_stays_finite_where_the_model_is_certain() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), gamma=2)
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert torch.isfinite(logits.grad).all()


def test_embedding_kl_by_hand() -> None:
    # Target softmax (1/2, 1/2), student softmax (1/4, 3/4).
    target, projected = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert embedding_kl(projected, target, temperature=1).item() == pytest.approx(expected, rel=1e-5)
    # Twice the inputs at temperature 2 give the same distributions, times T².
    assert embedding_kl(2 * projected, target, temperature=2).item() == pytest.approx(4 * expected, rel=1e-5)


def test_embedding_kl_is_zero_for_a_perfect_student_and_averages_the_batch() -> None:
    target = torch.randn(4, 5)
    assert embedding_kl(target + 3, target, temperature=1).item() == pytest.approx(0, abs=1e-6)
    one, other = torch.randn(1, 5), torch.randn(1, 5)
    both = embedding_kl(torch.cat([one, other]), target[:2], temperature=1)
    singly = embedding_kl(one, target[:1], temperature=1) + embedding_kl(other, target[1:2], temperature=1)
    torch.testing.assert_close(both, singly / 2)
