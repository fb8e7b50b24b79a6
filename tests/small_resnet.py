"""A user's own small ResNet, as a plug-in: `python -m tune.search --plugin tests/small_resnet.py`."""

from torch import Tensor, nn

from components.classifiers.victim import Victim
from components.plugins import classifier


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.first(x)))
        return self.relu(x + self.norm2(self.second(y)))


class SmallResNet(nn.Module):
    """Two blocks, the second at half the size, and dropout before the logits."""

    def __init__(self, channels: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.block1, self.block2 = Block(width), Block(width)
        self.shrink, self.pool = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2)
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.shrink(self.block1(self.stem(x))))
        # as many write it; a view needs the maps in the order that the network itself gives them
        return self.head(self.dropout(self.pool(x).view(x.size(0), -1)))


@classifier("small_resnet")
def small_resnet(image_shape: tuple[int, ...], classes: int) -> nn.Module:
    channels = image_shape[0]
    return Victim(SmallResNet(channels, classes), image_shape, classes, mean=[0.5] * channels, std=[0.25] * channels)
