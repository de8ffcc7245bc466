"""The tab that reads one photo."""
