"""Between brokers and pools: the three threads that serve a broker, and what they share."""
