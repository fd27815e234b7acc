"""A course's own hw5_utils: its eight names and no more, written plainly. Graders place such a file beside the scripts."""

import gzip

import numpy as np
import torch
from torch.utils.data import Dataset

BASE_URL = "http://yann.lecun.com/exdb/mnist/"


def download(url, filename):
    pass  # the test has put the files there


def mnist():
    arrays = []
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        with gzip.open(f"data/{name}-ubyte.gz") as file:
            content = file.read()
        arrays.append(
            np.frombuffer(content[16:], np.uint8).reshape(-1, 28, 28)
            if "images" in name
            else np.frombuffer(content[8:], np.uint8)
        )
    return tuple(arrays)


def load_mnist():
    train_images, train_labels, test_images, test_labels = mnist()
    N_data = len(train_images)
    images = [
        torch.from_numpy(np.round(a[:10000].reshape(-1, 784) / 255.0)).float() for a in (train_images, test_images)
    ]
    labels = [
        torch.from_numpy(np.array(a[:10000, None] == np.arange(10), dtype=int)).float()
        for a in (train_labels, test_labels)
    ]
    return N_data, images[0], labels[0], images[1], labels[1]


def batch_indices(iter, num_batches, batch_size):
    idx = iter % num_batches
    return slice(idx * batch_size, (idx + 1) * batch_size)


def array_to_image(array):
    return np.reshape(np.array(array), [28, 28])


def concat_images(images, row, col, padding=3):
    result = np.zeros((28 * row + (row - 1) * padding, 28 * col + (col - 1) * padding))
    for i in range(row):
        for j in range(col):
            top, left = i * (28 + padding), j * (28 + padding)
            result[top : top + 28, left : left + 28] = images[i + j * row]
    return result


class GANDataset(Dataset):
    def __init__(self, data_f, dev, transform=None):
        self.images = []
        with gzip.open(data_f) as file:
            file.read(16)
            while len(content := file.read(784)) == 784:
                image = torch.tensor([float(value) for value in content]).reshape(1, 28, 28)
                self.images.append((transform(image) if transform else image).to(dev))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]
