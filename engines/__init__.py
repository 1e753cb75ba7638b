"""Recipes: the nets in torch, their training, their export to ONNX. Nothing here runs in the service."""
