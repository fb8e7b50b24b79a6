"""Generator, discriminator and encoder: networks and training."""
