"""What a running search shows: TensorBoard, progress of trials and the terminal."""
