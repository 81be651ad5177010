"""Preprocessing, backbone and head as one Functional model, and which of it trains."""
