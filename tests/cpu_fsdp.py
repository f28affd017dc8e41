"""FSDP2 on CPUs: accelerate leaves FSDP off without accelerators, though `fully_shard` of torch works there."""

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def enable_fsdp_on_cpu() -> None:
    """Let accelerate take the path that it takes with GPUs, by gloo."""
    initialize = AcceleratorState.__init__

    def initialize_with_fsdp(self, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        initialize(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        if "fsdp_plugin" in self.__dict__:
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = initialize_with_fsdp
