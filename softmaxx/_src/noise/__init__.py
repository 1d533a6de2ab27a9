"""Noises, the samplers that draw them, and expectations over them."""
