"""A model as an artifact, proved to predict the same."""
