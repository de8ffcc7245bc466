"""Mixup and CutMix: exact weights, one rule for images and targets, and reproducible randomness."""

import pytest
import torch
import torch.nn.functional as F

from train.augment.mixing import Mix, draw_mix
from train.configuration import AugmentationSettings


def _draw(seed: int = 0, count: int = 8, size: int = 32, **settings: float) -> Mix | None:
    given = AugmentationSettings(**{"mixup": 0.0, "cutmix": 0.0, "mix_probability": 1.0} | settings)
    return draw_mix(given, count, size, torch.Generator().manual_seed(seed))


def test_mixes_images_and_targets_of_hand_made_values() -> None:
    mix = Mix(partner=torch.tensor([1, 0]), weight=torch.tensor([0.75, 0.25]))
    images = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    assert mix.images(images)[:, 0, 0, 0].tolist() == [0.25, 0.25]
    assert mix.values(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [[0.75, 0.25], [0.75, 0.25]]
    assert mix.values(torch.tensor([4.0, 8.0])).tolist() == [5.0, 5.0]


def test_the_loss_of_the_mixed_label_is_the_mixed_loss_of_the_labels() -> None:
    mix = _draw(mixup=0.4)
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    log_p = logits.log_softmax(dim=-1)
    expected = -(mix.values(F.one_hot(labels, 3).float()) * log_p).sum(dim=-1)
    own, partner = (F.cross_entropy(logits, y, reduction="none") for y in (labels, labels[mix.partner]))
    torch.testing.assert_close(mix.weight * own + (1 - mix.weight) * partner, expected)


@pytest.mark.parametrize("seed", range(12))
def test_the_weight_of_cutmix_is_the_share_of_pixels_that_are_kept(seed: int) -> None:
    mix = _draw(seed, count=4, size=40, cutmix=1.0)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 40, 40).contiguous()
    mixed = mix.images(images)
    for index, partner in enumerate(mix.partner.tolist()):
        assert set(mixed[index].unique().tolist()) <= {float(index), float(partner)}
        if partner != index:
            kept = (mixed[index, 0] == index).float().mean()
            torch.testing.assert_close(mix.weight[index], kept)


def test_a_cutmix_box_is_a_rectangle_of_every_size_anywhere() -> None:
    boxes = [_draw(seed, cutmix=1.0).box for seed in range(200)]
    for box in boxes:
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert box.sum() == rows.sum() * columns.sum()
        assert (rows.int().diff().abs().sum() <= 2) & (columns.int().diff().abs().sum() <= 2)
    shares = torch.stack(boxes).float().mean(dim=(1, 2))
    assert shares.min() < 0.05
    assert shares.max() > 0.7
    assert torch.stack(boxes).any(dim=0).all()


def test_weights_of_mixup_follow_the_beta_distribution() -> None:
    weights = torch.stack([_draw(seed, mixup=0.5).weight[0] for seed in range(600)])
    # Beta(a, a) has the variance 1 / (4 (2a + 1)).
    assert weights.mean() == pytest.approx(0.5, abs=0.05)
    assert weights.var() == pytest.approx(1 / 8, abs=0.015)


def test_every_image_is_the_partner_of_exactly_one() -> None:
    mix = _draw(mixup=1.0, count=50)
    assert sorted(mix.partner.tolist()) == list(range(50))
    assert mix.partner.tolist() != list(range(50))


def test_switched_off_nothing_is_mixed() -> None:
    assert _draw(mixup=0.0, cutmix=0.0) is None
    assert _draw(mixup=1.0, mix_probability=0.0) is None


def test_a_probability_is_the_share_of_batches_and_both_kinds_come_up() -> None:
    mixes = [_draw(seed, mixup=0.2, cutmix=1.0, mix_probability=0.5) for seed in range(200)]
    mixed = [mix for mix in mixes if mix is not None]
    assert 70 < len(mixed) < 130
    assert 0.3 < sum(mix.box is None for mix in mixed) / len(mixed) < 0.7


def test_a_seed_decides_everything() -> None:
    torch.manual_seed(0)
    first = _draw(3, cutmix=1.0)
    torch.manual_seed(1)
    second, third = _draw(3, cutmix=1.0), _draw(4, cutmix=1.0)
    assert torch.equal(first.box, second.box)
    assert torch.equal(first.partner, second.partner)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.partner, third.partner)


def test_moved_to_the_images_device_it_is_the_same() -> None:
    for kind in ("mixup", "cutmix"):
        mix = _draw(**{kind: 1.0})
        moved = mix.to(torch.device("cpu"))
        images = torch.rand(8, 3, 32, 32)
        assert torch.equal(moved.images(images), mix.images(images))
