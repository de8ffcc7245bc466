"""What is fitted after training so that an answer can be trusted: calibration, gates, similar cases."""
