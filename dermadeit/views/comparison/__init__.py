"""The tab that compares models."""
