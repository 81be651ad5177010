"""The phases of a recipe."""
