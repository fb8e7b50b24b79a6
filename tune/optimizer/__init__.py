"""Optuna: study, sampler, searcher, early stopping, warm start and the choice of the best."""
