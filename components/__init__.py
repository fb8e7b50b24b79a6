"""The defense and its parts in pure PyTorch: attacks, classifiers, data sets, GAN, projector and U-Net."""
