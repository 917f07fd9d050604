"""Reads and writes the files of models: folders in Hugging Face layout and safetensors files."""
