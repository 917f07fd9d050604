"""LoRA adapters: their files, the base model that they change, and the layers that train them."""
