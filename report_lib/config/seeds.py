"""One seed per purpose."""

import hashlib


def derive_seed(seed: int, purpose: str) -> int:
    """An independent 63-bit seed for each purpose ("split", "head", ...) of one run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big") >> 1
