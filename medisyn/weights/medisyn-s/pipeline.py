"""A MediSyn model as a diffusers pipeline; a copy of this file lies in every model folder.

    pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
    pipe("chest X-ray with pneumonia", num_images_per_prompt=4, seed=7).images

The networks and the sampler are medisyn's own (`pip install medisyn`): the same prompt and seed give the
same image as `medisyn generate`.
"""

from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput


class MediSynPipeline(DiffusionPipeline):
    """prompt -> images, through `medisyn.load`."""

    def __init__(self):
        super().__init__()
        self.synthesizer = None

    def __call__(self, prompt, num_images_per_prompt=1, seed=0, num_inference_steps=None, guidance_scale=None):
        """Images of a prompt, or of a list of prompts, from seeds seed, seed + 1, ... each. None: the model's own setting."""
        import medisyn
        if self.synthesizer is None:
            self.synthesizer = medisyn.load(self.config._name_or_path)
        wanted = [prompt] if isinstance(prompt, str) else prompt
        images = [made.picture for one in wanted for made in
                  self.synthesizer.generate(one, num_images_per_prompt, seed, num_inference_steps, guidance_scale)]
        return ImagePipelineOutput(images=images)
