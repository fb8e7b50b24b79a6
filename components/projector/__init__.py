"""The latent projector: image → nearest image of the generator."""
