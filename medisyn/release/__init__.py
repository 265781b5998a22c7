"""Release: what goes with a model or a collection when it leaves the house."""
