"""Networks: they know nothing of data, of training, or of time's direction."""
