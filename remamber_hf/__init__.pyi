# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0

from .configuration_remamber import ReMamberConfig as ReMamberConfig
from .configuration_remamber import VMambaConfig as VMambaConfig
from .configuration_vim import VimConfig as VimConfig
from .data.collator import ReMamberCollator as ReMamberCollator
from .data.folder import load_referring_folder as load_referring_folder
from .data.folder import rows_from_columns as rows_from_columns
from .data.refer import load_refer as load_refer
from .data.rows import row_mask as row_mask
from .image_processing_remamber import ReMamberImageProcessor as ReMamberImageProcessor
from .image_processing_remamber import ReMamberImageProcessorPil as ReMamberImageProcessorPil
from .inference.loading import BUNDLED_MODEL as BUNDLED_MODEL
from .inference.loading import BUNDLED_PICTURES as BUNDLED_PICTURES
from .inference.loading import load_model as load_model
from .inference.loading import load_pipeline as load_pipeline
from .inference.memory import keep_freed_memory as keep_freed_memory
from .modeling_remamber import ReMamberForImageSegmentation as ReMamberForImageSegmentation
from .modeling_remamber import ReMamberImageSegmentationOutput as ReMamberImageSegmentationOutput
from .modeling_remamber import ReMamberModel as ReMamberModel
from .modeling_remamber import ReMamberModelOutput as ReMamberModelOutput
from .modeling_remamber import ReMamberPreTrainedModel as ReMamberPreTrainedModel
from .modeling_vim import VimBackbone as VimBackbone
from .modeling_vim import VimForImageClassification as VimForImageClassification
from .modeling_vim import VimModel as VimModel
from .modeling_vim import VimPreTrainedModel as VimPreTrainedModel
from .modeling_vmamba import VMambaBackbone as VMambaBackbone
from .modeling_vmamba import VMambaForImageClassification as VMambaForImageClassification
from .modeling_vmamba import VMambaModel as VMambaModel
from .modeling_vmamba import VMambaPreTrainedModel as VMambaPreTrainedModel
from .pictures import open_picture as open_picture
from .pipeline_remamber import ReferringSegmentationPipeline as ReferringSegmentationPipeline
from .processing_remamber import ReMamberProcessor as ReMamberProcessor
from .training.arguments import ReMamberTrainingArguments as ReMamberTrainingArguments
from .training.trainer import ReferringSegmentationTrainer as ReferringSegmentationTrainer

__version__: str
