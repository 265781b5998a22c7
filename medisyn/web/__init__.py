"""MediSyn in a browser: one server, pages without outside resources, one process that owns the model."""
