"""The yardstick: the published training loops, as their listings do it, for benchmark and tests alone.

PIL images, torchvision's transforms, a DataLoader without workers, float32, the whole network forward in every epoch,
and the defects: the test images validate; the probe's frozen dropout stays on, and its losses are averages over
batches; fine-tuning normalises with 0.5 and never leaves eval mode after its first epoch. Imports nothing of ours.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import alexnet

OWN = torch.Generator()  # what a DataLoader draws for itself comes from here, and torch's own is left to dropout


class Pictures(Dataset):
    """uint8 (N, h, w, 3) and labels (N,), one PIL image at a time."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Callable) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[row])), int(self.labels[row])


def transform(size: int, mean: Sequence[float], std: Sequence[float]) -> Callable:
    return transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(mean=mean, std=std)]
    )


def linear_probe(
    net: nn.Module,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    orders: Iterable[Sequence[int]],
    size: int,
    device: torch.device,
    batch_size: int = 128,
) -> dict[str, list[float]]:
    """Approach 1 on `net`, whose last layer is new: one epoch for each of `orders`, the rows to train on in turn.

    Returns losses, test accuracies (fractions) and seconds of each epoch.
    """
    imagenet = transform(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    train_set, test_set = Pictures(*train, imagenet), Pictures(*test, imagenet)
    for parameter in net.parameters():
        parameter.requires_grad = False
    for parameter in net.classifier[6].parameters():  # type: ignore[index, union-attr]
        parameter.requires_grad = True
    optimizer = torch.optim.Adam(net.classifier[6].parameters(), lr=0.001)  # type: ignore[index, union-attr]
    criterion = nn.CrossEntropyLoss()
    test_loader = DataLoader(test_set, batch_size=batch_size, shuffle=False)
    curves: dict[str, list[float]] = {"train_loss": [], "validation_loss": [], "accuracy": [], "seconds": []}
    for order in orders:
        clock = time.perf_counter()
        train_loader = DataLoader(train_set, batch_size=batch_size, sampler=order, generator=OWN)  # type: ignore[arg-type]
        net.train()
        running_loss = 0.0
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        curves["train_loss"].append(running_loss / len(train_loader))

        net.eval()
        running_loss, correct = 0.0, 0
        with torch.no_grad():
            for images, labels in test_loader:
                images, labels = images.to(device), labels.to(device)
                outputs = net(images)
                running_loss += criterion(outputs, labels).item()
                correct += (outputs.max(1)[1] == labels).sum().item()
        curves["validation_loss"].append(running_loss / len(test_loader))
        curves["accuracy"].append(correct / len(test_set))
        curves["seconds"].append(time.perf_counter() - clock)
    return curves


def full_finetune(
    net: nn.Module,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    orders: Iterable[Sequence[int]],
    size: int,
    device: torch.device,
    batch_size: int = 128,
) -> dict[str, list[float]]:
    """Approach 2, in the same terms."""
    half = transform(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    train_set, test_set = Pictures(*train, half), Pictures(*test, half)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()
    test_loader = DataLoader(test_set, batch_size=batch_size, shuffle=False)
    curves: dict[str, list[float]] = {"train_loss": [], "validation_loss": [], "accuracy": [], "seconds": []}
    net.train()  # once, before the first epoch, as a new network is
    for order in orders:
        clock = time.perf_counter()
        train_loader = DataLoader(train_set, batch_size=batch_size, sampler=order, generator=OWN)  # type: ignore[arg-type]
        train_loss = 0.0
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            train_loss += loss.item() * images.size(0)
        curves["train_loss"].append(train_loss / len(order))

        net.eval()
        validation_loss, correct = 0.0, 0
        with torch.no_grad():
            for images, labels in test_loader:
                images, labels = images.to(device), labels.to(device)
                outputs = net(images)
                validation_loss += criterion(outputs, labels).item() * images.size(0)
                correct += (outputs.max(1)[1] == labels).sum().item()
        curves["validation_loss"].append(validation_loss / len(test_set))
        curves["accuracy"].append(correct / len(test_set))
        curves["seconds"].append(time.perf_counter() - clock)
    return curves


def published_rate(
    approach: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: int,
    size: int,
    device: torch.device,
) -> float:
    """Training images a second of one epoch, its evaluation included. The weights are random: speed is the same."""
    net = alexnet()
    net.classifier[6] = nn.Linear(4096, classes)
    net.to(device)
    count = len(train[0]) * 4 // 5  # of fine-tuning too, so that both sides take the same steps
    order = torch.randperm(len(train[0]))[:count].tolist()
    loop = linear_probe if approach == "linear_probe" else full_finetune
    return count / loop(net, train, test, [order], size, device)["seconds"][0]
