"""Every figure that others published about this model on real cards, and what came of it here."""
