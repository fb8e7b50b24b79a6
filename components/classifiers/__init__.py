"""The networks to defend."""
