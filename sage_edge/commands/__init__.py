"""What ``sage-edge`` does: a file for each command, each with ``add_parser``."""
