"""Models through transformers. Everything below imports torch and transformers and is itself imported only on use."""

import logging

# Where torchao is installed transformers imports it, and it complains of kernels for machines that this is not.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
