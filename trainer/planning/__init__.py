"""Estimate a training step before anything is rented: parameters, memory, operations. Experimental.

Fake tensors and the counting of operations rest on private names of torch. A test holds that no other package uses
any; a new version of torch may break this package without notice, and nothing that trains imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
