"""Noises, samplers of noise, and means over noise with their derivatives."""
