"""The demo: a small cluster on this machine, from a mixed rollout to freed bytes."""
