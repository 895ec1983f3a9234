"""The parts of check_isolated: wheels, rooms to install them in, and what is proven there."""
