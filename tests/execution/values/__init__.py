"""What is done to disks, beside what torch, safetensors and the kernel say of it."""
