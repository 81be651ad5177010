"""Pretrained networks, cut into stages."""
