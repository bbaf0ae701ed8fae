"""How other programs make an image with a composed file: a text to paste for each of them.

The scales of the LoRAs are within the file, so that every program loads it with a strength of 1.
The local target fills in the file and a prompt with its trigger words as string literals (`$path`,
`$prompt`), the prompt as it is (`$text`), the name that `compose pull` gives the file (`$stem`),
and the recipe as a word of a command (`$recipe`).
"""

from __future__ import annotations

USAGES = {
    "diffusers": """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe.load_lora_weights($path)
pipe($prompt).images[0].save("$stem.png")
""",
    "comfyui": """\
# Write the file where ComfyUI looks for LoRAs (COMFYUI_PATH may say where ComfyUI is):
#   compose pull $recipe --to comfyui
# The node between the model and the sampler, in the API form of a workflow ("1" is the model's
# node). A prompt for it: $text
{
  "class_type": "LoraLoaderModelOnly",
  "inputs": {"lora_name": "$stem.safetensors", "strength_model": 1.0, "model": ["1", 0]}
}
""",
    "a1111": """\
# Write the file where the web UI, or Forge, looks for LoRAs, then use the prompt below:
#   compose pull $recipe -o stable-diffusion-webui/models/Lora/
<lora:$stem:1> $text
""",
    "fal": """\
import fal_client  # pip install fal-client; it needs FAL_KEY

url = fal_client.upload_file($path)
result = fal_client.subscribe(
    "fal-ai/flux-lora",
    arguments={"prompt": $prompt, "loras": [{"path": url, "scale": 1}]},
)
print(result["images"][0]["url"])
""",
    "replicate": """\
import replicate  # pip install replicate; it needs REPLICATE_API_TOKEN

# Replicate loads the file from a URL. Upload it first, for example to Hugging Face:
#   compose pull $recipe -o $stem.safetensors
url = "https://huggingface.co/USER/REPOSITORY/resolve/main/$stem.safetensors"
images = replicate.run(
    "black-forest-labs/flux-dev-lora",
    input={"prompt": $prompt, "lora_weights": url, "lora_scale": 1},
)
print(images[0])
""",
}
