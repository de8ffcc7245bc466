"""What runs a network: PyTorch, the reference, or OpenVINO."""
