"""Training programs: everything that makes a checkpoint and that serving one does not need."""
