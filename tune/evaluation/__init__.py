"""The chosen configuration: trained once per seed, and measured on the test images, which are opened once."""
