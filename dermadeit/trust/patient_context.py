"""Age and sex joined with what a network says of a photo: late fusion by a multinomial logistic regression.

The regression adds to the network's calibrated log-probabilities a term for each class that is linear in age and
sex, so that the photo counts as it did and nothing but age and sex is learned. It is fitted on lesions that did
not train the network. Two other forms did worse on such lesions: log-probabilities with coefficients of their own,
and more bends of the age. Site and source are left out: the one adds nothing, and the other says which clinic a
photo is from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import numpy as np
from scipy.special import logsumexp, softmax

from dermadeit.data.patient import Patient
from dermadeit.metrics.weighted import log_losses
from dermadeit.trust.calibration import Calibration, ReadingValues, calibrations_to_dict, read_calibrations

NOT_FITTED = "This model was not fitted with age and sex."
AGE_NEEDED = "The age is not known, so the answer is that of the photo alone."

PENALTIES = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Factors of half the squared coefficients that are tried, beside the summed log-loss (1 / C of scikit-learn)."""

INPUTS = ("age", "sex")
"""What the coefficients of each class are about: the standardised age; and 1 for female, -1 for male, else 0."""

_SEXES = {"female": 1.0, "male": -1.0}
_FOLDS = 5
_SMALLEST_PROBABILITY = 1e-12


class AgeValues(TypedDict):
    """How ages in years were standardised, and the range of those in the fit: the fields of `AgeScale`."""

    mean: float
    deviation: float
    least: float
    greatest: float


class PatientContextValues(TypedDict):
    """What was fitted for age and sex, as JSON-ready values.

    Attributes:
        inputs: `INPUTS`.
        age: How the age is standardised.
        coefficients: A row for each class, a number for each input.
        intercepts: One for each class.
        readings: Key of each task to its decisions and sets, as in `CalibrationsValues`; its report has the gain.
        report: For people: how many images and lesions, and the penalty.
    """

    inputs: list[str]
    age: AgeValues
    coefficients: list[list[float]]
    intercepts: list[float]
    readings: dict[str, ReadingValues]
    report: dict[str, Any]


@dataclass(frozen=True)
class AgeScale:
    """How ages in years are standardised; one outside the range of the fit counts as its nearest end.

    Attributes:
        mean: Of the ages in the fit.
        deviation: Their standard deviation, above 0.
        least: The youngest age in the fit.
        greatest: The oldest.
    """

    mean: float
    deviation: float
    least: float
    greatest: float

    def __call__(self, ages: np.ndarray) -> np.ndarray:
        """Float [M], years to standardised ages."""
        return (np.clip(ages, self.least, self.greatest) - self.mean) / self.deviation


@dataclass(frozen=True)
class Fusion:
    """softmax(log p + coefficients · [age, sex] + intercepts), fitted by `fit_fusion`.

    Attributes:
        age: How the age is standardised.
        coefficients: N rows of a number for each of `INPUTS`.
        intercepts: N numbers.
    """

    age: AgeScale
    coefficients: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]

    def __call__(self, probabilities: np.ndarray, patients: Sequence[Patient | None]) -> np.ndarray:
        """Probabilities with age and sex.

        Args:
            probabilities: float [M, N], calibrated, of the photos alone.
            patients: M patients, None where nothing is known.

        Returns:
            float64 [M, N], rows summing to 1; those without an age as they were.
        """
        fused = np.array(probabilities, dtype=float)
        known = [index for index, patient in enumerate(patients) if has_age(patient)]
        if known:
            inputs = _inputs([patients[index] for index in known], self.age)
            added = inputs @ np.array(self.coefficients).T + self.intercepts
            fused[known] = softmax(_logs(fused[known]) + added, axis=1)
        return fused


@dataclass(frozen=True)
class PatientContext:
    """What was fitted for answers with age and sex, and belongs to the network's weights.

    Attributes:
        fusion: Probabilities of the photo to probabilities with age and sex.
        calibrations: Key of each task to the decisions and sets of such probabilities, and in its report the gain
            over those of the photo alone.
        report: For people: how many images and lesions it was fitted on, and with which penalty.
    """

    fusion: Fusion
    calibrations: Mapping[str, Calibration]
    report: Mapping[str, Any] = field(default_factory=dict)

    def note(self, patient: Patient) -> str:
        """What a reader should know about how this patient's age was used, as a sentence; or an empty string."""
        if patient.age is None:
            return AGE_NEEDED
        age = self.fusion.age
        if age.least <= patient.age <= age.greatest:
            return ""
        end = age.least if patient.age < age.least else age.greatest
        known = f"The ages in the fit go from {age.least:g} to {age.greatest:g}."
        return f"{known} The answer is that for age {end:g}."


def has_age(patient: Patient | None) -> bool:
    """Whether an answer can take this patient into account."""
    return patient is not None and patient.age is not None


def fit_fusion(
    probabilities: np.ndarray, patients: Sequence[Patient], labels: np.ndarray, groups: Sequence[str]
) -> tuple[Fusion, float]:
    """Fits the regression, with the penalty that does best on lesions it was not fitted on.

    Args:
        probabilities: float [M, N], calibrated, of the photos alone.
        patients: M patients whose age is known.
        labels: int [M], every class among them.
        groups: M lesion names; a lesion is never on both sides of the cross-validation.

    Returns:
        The regression, and its penalty.
    """
    folds = _folds(labels, groups)

    def loss(penalty: float) -> float:
        losses = []
        for rest, out in folds:
            fusion = _fit(probabilities[rest], _at(patients, rest), labels[rest], penalty)
            losses.append(log_losses(labels[out], fusion(probabilities[out], _at(patients, out))))
        return float(np.concatenate(losses).mean())

    penalty = min(PENALTIES, key=loss)
    return _fit(probabilities, patients, labels, penalty), penalty


def cross_fitted(
    probabilities: Mapping[int, np.ndarray],
    patients: Sequence[Patient],
    labels: np.ndarray,
    groups: Sequence[str],
) -> dict[int, np.ndarray]:
    """Probabilities with age and sex of each image by a regression that was fitted on the other lesions alone.

    Args:
        probabilities: Number of views to float [M, N], calibrated, of the photos alone. The most views are fitted
            to.
        patients: M patients whose age is known.
        labels: int [M].
        groups: M lesion names.

    Returns:
        Number of views to float64 [M, N].
    """
    most = probabilities[max(probabilities)]
    fused = {views: np.empty(part.shape) for views, part in probabilities.items()}
    for rest, out in _folds(labels, groups):
        names = np.asarray(groups)[rest].tolist()
        fusion, _ = fit_fusion(most[rest], _at(patients, rest), labels[rest], names)
        for views, part in probabilities.items():
            fused[views][out] = fusion(part[out], _at(patients, out))
    return fused


def context_to_dict(context: PatientContext) -> PatientContextValues:
    """JSON-ready values that `read_context` reads."""
    age = context.fusion.age
    return {
        "inputs": list(INPUTS),
        "age": {"mean": age.mean, "deviation": age.deviation, "least": age.least, "greatest": age.greatest},
        "coefficients": [list(row) for row in context.fusion.coefficients],
        "intercepts": list(context.fusion.intercepts),
        "readings": calibrations_to_dict(context.calibrations)["readings"],
        "report": dict(context.report),
    }


def read_context(values: Mapping[str, Any], calibrations: Mapping[str, Any]) -> PatientContext:
    """Reads what `context_to_dict` gave.

    Args:
        values: These.
        calibrations: Those of the photo alone, as `calibration.calibrations_to_dict` gives them: the network's
            classes and its scalings are in them.

    Raises:
        KeyError, TypeError, ValueError: It is something else.
    """
    fusion = Fusion(
        AgeScale(**{key: float(values["age"][key]) for key in AgeValues.__annotations__}),
        tuple(tuple(map(float, row)) for row in values["coefficients"]),
        tuple(map(float, values["intercepts"])),
    )
    scale, num_classes = fusion.age, len(calibrations["classes"])
    numbers = np.concatenate([np.ravel(fusion.coefficients), fusion.intercepts, list(asdict(scale).values())])
    if (
        tuple(values["inputs"]) != INPUTS
        or [len(row) for row in fusion.coefficients] != [len(INPUTS)] * num_classes
        or len(fusion.intercepts) != num_classes
        or not np.isfinite(numbers).all()
        or scale.deviation <= 0
        or scale.least > scale.greatest
    ):
        raise ValueError("not a regression on age and sex for the classes of this network")
    readings = read_calibrations({**calibrations, "readings": values["readings"]})
    if set(readings) != set(calibrations["readings"]):
        raise ValueError("not the tasks of the calibration")
    return PatientContext(fusion, readings, dict(values["report"]))


def _fit(
    probabilities: np.ndarray, patients: Sequence[Patient], labels: np.ndarray, penalty: float
) -> Fusion:
    """The least penalised log-loss, by L-BFGS with its gradient; it is convex. Intercepts are not penalised."""
    ages = np.array([patient.age for patient in patients], dtype=float)
    scale = AgeScale(float(ages.mean()), float(ages.std()) or 1.0, float(ages.min()), float(ages.max()))
    inputs = np.column_stack([_inputs(patients, scale), np.ones(len(labels))])
    logs, truth = _logs(probabilities), np.eye(probabilities.shape[1])[labels]
    penalties = np.append(np.full(len(INPUTS), penalty), 0.0)[:, None]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters.reshape(inputs.shape[1], -1)
        scores = logs + inputs @ weights
        value = (logsumexp(scores, axis=1) - (scores * truth).sum(axis=1)).sum()
        gradient = inputs.T @ (softmax(scores, axis=1) - truth) + penalties * weights
        return value + (penalties * weights**2).sum() / 2, gradient.ravel()

    start = np.zeros(inputs.shape[1] * logs.shape[1])
    # Only fitting needs it, and it is slow to import.
    from scipy.optimize import minimize

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "maxiter": 1000})
    *coefficients, intercepts = found.x.reshape(inputs.shape[1], -1)
    return Fusion(scale, tuple(map(tuple, np.transpose(coefficients).tolist())), tuple(intercepts.tolist()))


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=float), _SMALLEST_PROBABILITY))


def _inputs(patients: Sequence[Patient | None], scale: AgeScale) -> np.ndarray:
    """`INPUTS` of patients whose age is known, float64 [M, 2]. An unknown sex lies halfway between the two."""
    known = [patient for patient in patients if patient is not None]
    ages = scale(np.array([patient.age for patient in known], dtype=float))
    return np.column_stack([ages, [_SEXES.get(patient.sex or "", 0.0) for patient in known]])


def _folds(labels: np.ndarray, groups: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedGroupKFold

    return list(StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0).split(labels, labels, groups))


def _at(patients: Sequence[Patient], indices: np.ndarray) -> list[Patient]:
    return [patients[index] for index in indices]
