"""The U-Net that cleans what projection leaves: network, loss and training."""
