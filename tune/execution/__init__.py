"""Runs a search on Ray: one session of it, its trials, finalists and retrained seeds."""
