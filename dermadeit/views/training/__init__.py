"""The tab with training and model card."""
