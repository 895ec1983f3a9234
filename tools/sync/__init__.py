"""The parts of sync_packages: what the packages are, and what is made from them."""
