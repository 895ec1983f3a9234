"""From declared tasks and installed controls to one compiled runner a task."""
