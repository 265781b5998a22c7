"""Training: a collection becomes a run, a run becomes a model."""
