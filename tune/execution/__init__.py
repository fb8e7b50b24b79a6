"""Runs a search: preflight, estimate, driver, trials, retraining and evaluation."""
