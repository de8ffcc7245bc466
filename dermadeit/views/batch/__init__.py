"""The tab that evaluates a batch."""
