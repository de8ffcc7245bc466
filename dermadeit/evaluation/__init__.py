"""Evaluating models: predictions, comparison, thresholds, calibration, robustness."""
