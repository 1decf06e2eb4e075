# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
What transformers is told of this package: its Auto classes, its pipelines, and which weights are not to be renamed.

`registration.py` imports this when transformers has been imported. It is no part of what is saved with weights.
"""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageSegmentation,
    AutoProcessor,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import PrefixChange, WeightRenaming
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_remamber import ReMamberConfig, VMambaConfig
from .configuration_vim import VimConfig
from .image_processing_remamber import ReMamberImageProcessor, ReMamberImageProcessorPil
from .modeling_remamber import ReMamberForImageSegmentation, ReMamberModel
from .modeling_vim import VimBackbone, VimForImageClassification, VimModel
from .modeling_vmamba import VMambaBackbone, VMambaForImageClassification, VMambaModel
from .pipeline_remamber import ReferringSegmentationPipeline
from .processing_remamber import ReMamberProcessor
from .saved_code import TASK


# exist_ok: transformers may have models of these names one day; whoever imports this package means the ones here.
AutoConfig.register("vmamba", VMambaConfig, exist_ok=True)
AutoConfig.register("vim", VimConfig, exist_ok=True)
AutoConfig.register("remamber", ReMamberConfig, exist_ok=True)
AutoModel.register(VMambaConfig, VMambaModel, exist_ok=True)
AutoModel.register(ReMamberConfig, ReMamberModel, exist_ok=True)
AutoModel.register(VimConfig, VimModel, exist_ok=True)
AutoBackbone.register(VMambaConfig, VMambaBackbone, exist_ok=True)
AutoBackbone.register(VimConfig, VimBackbone, exist_ok=True)
AutoModelForImageClassification.register(VMambaConfig, VMambaForImageClassification, exist_ok=True)
AutoModelForImageClassification.register(VimConfig, VimForImageClassification, exist_ok=True)
AutoModelForImageSegmentation.register(ReMamberConfig, ReMamberForImageSegmentation, exist_ok=True)
# AutoImageProcessor.register would first import transformers' own, and add ours to them.
IMAGE_PROCESSORS = {"torchvision": ReMamberImageProcessor, "pil": ReMamberImageProcessorPil}
# Its annotation is of tokenizers' pairs; image processors come as a dict.
IMAGE_PROCESSOR_MAPPING.register(ReMamberConfig, IMAGE_PROCESSORS, exist_ok=True)  # type: ignore[arg-type]
IMAGE_PROCESSOR_MAPPING.register(VMambaConfig, IMAGE_PROCESSORS, exist_ok=True)  # type: ignore[arg-type]
AutoProcessor.register(ReMamberConfig, ReMamberProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(TASK, ReferringSegmentationPipeline, pt_model=AutoModelForImageSegmentation)


class RenamedBack(PrefixChange):
    """A renaming when weights are loaded and none when they are saved; of a kind that transformers leaves out then."""

    __slots__ = ()

    def __init__(self, source_patterns, target_patterns):
        WeightRenaming.__init__(self, source_patterns, target_patterns)

    def reverse_transform(self):
        return self.copy(self._original_target_patterns, self._original_target_patterns)


# Under DETR and its kin transformers renames every out_proj of a checkpoint, a backbone's too: it would be random.
register_checkpoint_conversion_mapping("VMambaBackbone", [RenamedBack("ss2d.o_proj", "ss2d.out_proj")], overwrite=True)
register_checkpoint_conversion_mapping("VimBackbone", [RenamedBack("mixer.o_proj", "mixer.out_proj")], overwrite=True)

# And it would rename ours as its own, if it had models of these names.
for name in (
    *("vmamba", "VMambaModel", "VMambaForImageClassification", "vim", "VimModel", "VimForImageClassification"),
    *("remamber", "ReMamberModel", "ReMamberForImageSegmentation"),
):
    register_checkpoint_conversion_mapping(name, [], overwrite=True)

# save_pretrained then writes the code files beside the weights, so that trust_remote_code loads them anywhere.
VMambaConfig.register_for_auto_class()
VimConfig.register_for_auto_class()
ReMamberConfig.register_for_auto_class()
VMambaModel.register_for_auto_class("AutoModel")
VMambaBackbone.register_for_auto_class("AutoBackbone")
VMambaForImageClassification.register_for_auto_class("AutoModelForImageClassification")
VimModel.register_for_auto_class("AutoModel")
VimBackbone.register_for_auto_class("AutoBackbone")
VimForImageClassification.register_for_auto_class("AutoModelForImageClassification")
ReMamberModel.register_for_auto_class("AutoModel")
ReMamberForImageSegmentation.register_for_auto_class("AutoModelForImageSegmentation")
ReMamberImageProcessor.register_for_auto_class()
ReMamberImageProcessorPil.register_for_auto_class()
ReMamberProcessor.register_for_auto_class()
