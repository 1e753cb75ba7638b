"""Ablations and rivals of the vision model; they need torch and labelled frames."""
