"""Which teachers can be had: what the Hub refuses, what is at hand without it, and what is preferred."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from dermadeit.errors import ConfigurationError
from train.teachers import foundation
from train.teachers.foundation import FOUNDATION_MODELS
from train.teachers.networks import available_teacher, create_teachers

CPU = torch.device("cpu")


def hub_error(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    import huggingface_hub.errors as errors

    request = sys.modules[errors.Response.__module__].Request("GET", "https://huggingface.co")
    return kind("refused", response=errors.Response(status, request=request))


@pytest.mark.parametrize(
    ("name", "error", "code", "remedy"),
    [
        ("derm-foundation", hub_error(GatedRepoError, 403), "teacher_refused", "Accept .*hf auth login"),
        (
            "medsiglip",
            hub_error(HfHubHTTPError, 401),
            "teacher_refused",
            "google/medsiglip-448.*hf auth login",
        ),
        ("monet", hub_error(HfHubHTTPError, 503), "teacher_unreachable", "connection.*monet:FOLDER"),
        ("dinov2-large", LocalEntryNotFoundError("offline"), "teacher_unreachable", "dinov2-large:FOLDER"),
        ("monet", HTTPError("no route"), "teacher_unreachable", "connection"),
    ],
)
def test_a_hub_that_gives_nothing_is_explained(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, code: str, remedy: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(foundation, "snapshot_download", refuse)
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        create_teachers(name, CPU)
    assert caught.value.code == code


class Hub:
    """The few calls that ask the Hub what can be had."""

    def __init__(self) -> None:
        self.online, self.token, self.accepted, self.cached = True, "token", True, ""

    def auth_check(self, repository: str) -> None:
        self.model_info(repository, 1)
        if not self.accepted:
            raise hub_error(GatedRepoError, 403)

    def model_info(self, repository: str, timeout: float) -> None:
        if not self.online:
            raise HTTPError("no route")

    def try_to_load_from_cache(self, repository: str, name: str) -> str | None:
        return f"/cache/{name}" if repository == self.cached else None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    for name in ("auth_check", "model_info", "try_to_load_from_cache"):
        monkeypatch.setattr(foundation, name, getattr(hub, name))
    monkeypatch.setattr(foundation, "get_token", lambda: hub.token)
    monkeypatch.setattr(foundation, "find_spec", lambda name: object())
    return hub


def test_derm_foundation_is_preferred_and_needs_accepted_terms(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_teacher("binary", tmp_path)[0] == "derm-foundation"
    hub.accepted = False
    name, reason = available_teacher("binary", tmp_path)
    assert name == "monet"
    assert "MONET can be had" in reason
    assert "Derm Foundation can't: the Hugging Face Hub does not give it to this login" in reason
    hub.accepted, hub.token = True, None
    assert "no login" in available_teacher("binary", tmp_path)[1]
    hub.token = "token"
    monkeypatch.setattr(foundation, "find_spec", lambda name: None)
    assert available_teacher("binary", tmp_path) == (
        "monet",
        "MONET can be had. Derm Foundation can't: tensorflow is not installed.",
    )


@pytest.mark.parametrize("name", ["derm-foundation", "monet", "dinov2"])
def test_offline_what_was_fetched_before_can_be_had(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.online, hub.cached = False, FOUNDATION_MODELS[name].repository
    assert available_teacher("binary", tmp_path)[0] == name


def test_offline_local_checkpoints_teach(
    hub: Hub, own_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    hub.online = False
    name, reason = available_teacher("binary", tmp_path)
    assert name == "none"
    assert "can't be reached" in reason
    own_checkpoint("student", "dermadeit")
    own_checkpoint("othertask", task="multiclass")
    assert available_teacher("binary", tmp_path)[0] == "none"
    plain = own_checkpoint("plain")
    first = own_checkpoint("fold0", folds=2, held_out_fold=0)
    assert available_teacher("binary", tmp_path)[0] == f"checkpoint:{plain}"
    second = own_checkpoint("fold1", folds=2, held_out_fold=1)
    name, reason = available_teacher("binary", tmp_path)
    assert name == f"checkpoint:{first},{second}"
    assert "2 of our own checkpoints" in reason
    own_checkpoint("again", folds=2, held_out_fold=0)
    own_checkpoint("lonely", folds=3, held_out_fold=0)
    assert available_teacher("binary", tmp_path)[0].count(",") == 1
