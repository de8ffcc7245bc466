"""What the terms of statistics on the page mean, in one sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        "Sensitivity": "Share of the lesions of a class that the model finds.",
        "Specificity": "Share of the other lesions that the model does not call by the name of this class.",
        "Predictive values": "Share of right answers among those for a class (positive) or against it (negative). "
        "They depend on the prevalence.",
        "Prevalence": "Share of the lesions of a class among all lesions, where the answers are used.",
        "Operating point": "A threshold that was chosen in advance, for example for 95\u00a0% sensitivity.",
        "Threshold": "At or above this probability, the answer is the class that must not be missed.",
        "Calibrated probability": "Of answers with 80\u00a0%, about 80 of 100 are right, for similar photos.",
        "Prediction set": "The classes that are still possible. For 90\u00a0% of lesions, one of them is true.",
        "Answer withheld": "The photo shows no skin lesion or can't be read. It gets no answer.",
        "95\u00a0% interval": "The range of values that fit the data. Few lesions give a wide range.",
        "Accuracy": "Share of right answers.",
        "Balanced accuracy": "Share of right answers in each class, averaged: rare classes count as much.",
        "AUROC": "Probability that a lesion of the class gets a higher score than another one. 0.5 is chance, "
        "1 is best.",
        "Average precision": "Mean precision at all sensitivities. Chance is the prevalence, 1 is best.",
        "F1": "Harmonic mean of sensitivity and positive predictive value. Macro: mean over the classes.",
        "Cohen's κ": "Agreement beyond chance. 0 is chance, 1 is full agreement.",
        "Calibration error": "Mean difference between probability and share of right answers. 0 is best.",
        "Net benefit": "Hits minus weighted false alarms, a share of all lesions. The threshold sets the weight.",
        "McNemar's test": "Tests if two models make equally many errors on the same images.",
        "DeLong's test": "Tests if two models have the same AUROC on the same images.",
        "Grad-SAM, Grad-CAM": "Heatmaps of the areas that raise the score of a class.",
    }
)
"""What the terms of statistics on the page mean."""
