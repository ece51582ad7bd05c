"""What the workflows do: each activity takes references, works for seconds or minutes, and may be repeated."""
