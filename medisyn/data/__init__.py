"""What lies on disk: words, records, images, prompts. numpy and Pillow only, never torch."""
