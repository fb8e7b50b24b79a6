"""The search: spaces, stages, trials on Ray Tune proposed by Optuna, their storage, display and reports."""
