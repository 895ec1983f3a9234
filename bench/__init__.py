"""Figures of boost, each measured beside what it is compared with: ``python -m bench [NAME...]``."""
