"""Glance and refine: an anytime segmentation net that spends its steps on the tiles that gain most."""
