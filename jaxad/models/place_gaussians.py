"""A Gaussian of feature vectors at every position: PaDiM's model (Defard et al. 2021, Eq. 1)."""

import numpy as np
from jaxtyping import Float

HostVectors = Float[np.ndarray, "batch places channels"]

#: Added to the diagonal of every covariance: the paper's epsilon.
RIDGE = 0.01
#: Places whose covariances are updated or inverted at once; bounds the memory in use.
_CHUNK = 256


class PlaceGaussians:
    """A Gaussian of the features at every position, estimated in one pass, in float64.

    Vectors are taken relative to the mean of the first part, so that the covariance stays precise
    where means are large.
    """

    def __init__(self, num_places: int, num_channels: int):
        self._count = 0
        self._shift = np.zeros((num_places, num_channels))
        self._sum = np.zeros((num_places, num_channels))
        self._products = np.zeros((num_places, num_channels, num_channels))

    def add(self, vectors: HostVectors) -> None:
        """Adds the vectors of some images, float32 [B, places, channels]."""
        if not len(vectors):
            return
        if not self._count:
            self._shift = vectors.mean(axis=0, dtype=np.float64)
        self._count += len(vectors)
        for part in self._parts():
            shifted = vectors[:, part].astype(np.float64) - self._shift[part]
            self._sum[part] += shifted.sum(axis=0)
            self._products[part] += np.matmul(shifted.transpose(1, 2, 0), shifted.swapaxes(0, 1))

    def whiten(
        self,
    ) -> tuple[Float[np.ndarray, "places channels"], Float[np.ndarray, "places channels channels"]]:
        """Returns mu and L^-1 of every position (Eq. 1, Sigma = L L^T), float32."""
        whitening = np.empty(self._products.shape, np.float32)
        for part in self._parts():
            whitening[part] = np.linalg.inv(self._factor(part))
        return (self._shift + self._sum / self._count).astype(np.float32), whitening

    def factors(self) -> Float[np.ndarray, "places channels channels"]:
        """Returns L of every position, float32."""
        return np.concatenate([self._factor(part).astype(np.float32) for part in self._parts()])

    def _factor(self, part: slice) -> Float[np.ndarray, "part channels channels"]:
        outer = self._sum[part, :, None] * self._sum[part, None] / self._count
        covariance = (self._products[part] - outer) / max(self._count - 1, 1)
        return np.linalg.cholesky(covariance + RIDGE * np.eye(covariance.shape[-1]))

    def _parts(self) -> list[slice]:
        return [slice(start, start + _CHUNK) for start in range(0, len(self._sum), _CHUNK)]
