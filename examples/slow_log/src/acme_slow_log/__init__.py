"""Says which jobs of boost took long."""
