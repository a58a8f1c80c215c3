# SPDX-License-Identifier: Apache-2.0
"""What the extension ``_mounts`` offers."""

def clone(path: str) -> int:
    """A descriptor (O_PATH) of a file in a mount of its own, which is in no directory.

    The mount ends with its last user (open_tree(2), Linux 5.2). The caller closes the descriptor.
    Raises OSError: also EINVAL where the file's mount is of another mount namespace.
    """
