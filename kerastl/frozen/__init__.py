"""Runs frozen stages once."""
