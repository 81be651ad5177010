"""A model as an artifact."""
