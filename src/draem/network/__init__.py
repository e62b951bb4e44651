"""Both sub-networks, their losses and their weights (needs torch)."""
