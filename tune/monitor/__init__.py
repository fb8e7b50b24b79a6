"""The display of a running search: TensorBoard, progress of trials and the terminal."""
