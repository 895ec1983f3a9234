"""A worker: one process's subscriptions, pools and shutdown."""
