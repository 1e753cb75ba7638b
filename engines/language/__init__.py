"""Trains, calibrates, exports and measures the reader of the language plugin."""
