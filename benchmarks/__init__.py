"""Every number that the documentation quotes, each by one command. They use only what sage_edge exports."""
