"""Where operations run, and what this machine is: the processor, NVIDIA GPUs, their driver."""
