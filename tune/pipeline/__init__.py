"""The stages of a trial, and the executor that gets or builds them."""
