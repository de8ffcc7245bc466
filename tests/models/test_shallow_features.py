"""Shallow embeddings: what is recorded, and that nothing stays behind."""

import pytest
import torch

from dermadeit.models.classifier import SHALLOW_BLOCK, create_classifier, recording_shallow_embeddings


@pytest.mark.parametrize(("name", "length"), [("dermadeit", 192), ("deit", 192), ("mobilenetv2", 32)])
def test_each_batch_gives_one_embedding_an_image(name: str, length: int) -> None:
    classifier = create_classifier(name, 2, image_size=64).eval()
    with torch.inference_mode(), recording_shallow_embeddings(classifier) as recorded:
        classifier(torch.zeros(3, 3, 64, 64))
        classifier(torch.ones(1, 3, 64, 64))
    assert [tuple(batch.shape) for batch in recorded] == [(3, length), (1, length)]
    assert torch.equal(recorded[0][0], recorded[0][2])
    assert not torch.allclose(recorded[0][0], recorded[1][0])


def test_the_prefix_tokens_are_left_out() -> None:
    torch.manual_seed(0)
    classifier = create_classifier("dermadeit", 2, image_size=64).eval()
    backbone, images = classifier.backbone, torch.randn(2, 3, 64, 64)
    with torch.inference_mode(), recording_shallow_embeddings(classifier) as recorded:
        classifier(images)
        tokens = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(images)))
        for block in backbone.blocks[: SHALLOW_BLOCK + 1]:
            tokens = block(tokens)
    assert tokens.shape[1] == 2 + 16
    torch.testing.assert_close(recorded[0], tokens[:, 2:].mean(dim=1))


def test_nothing_is_recorded_afterwards_even_when_a_pass_fails() -> None:
    classifier = create_classifier("dermadeit", 2, image_size=64).eval()
    with pytest.raises(AssertionError), recording_shallow_embeddings(classifier) as recorded:
        classifier(torch.zeros(1, 3, 32, 32))
    with torch.inference_mode():
        classifier(torch.zeros(1, 3, 64, 64))
    assert recorded == []
