"""What is published: benchmark, its tables, model card."""
